"""What only a GPU can show: exactness, speed compared with PEFT, and a small study; see `__main__`."""

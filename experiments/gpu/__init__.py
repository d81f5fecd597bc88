"""What can only be found out on a GPU: exactness, speed next to PEFT, and a small study; see `__main__`."""

"""What a study is: its file, its cells and what they cost."""

from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
"""A folder for each parser, with inputs that once reached a part of it which no other did."""

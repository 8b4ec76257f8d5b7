"""LoRA adapters as peft saves them: opened as experts of a base, applied in order, made from a delta, written again.

peft itself is never imported: its files are read and written by what they say.
"""

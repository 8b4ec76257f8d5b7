"""What a candidate is worth on all documents, estimated from its items on a few and from earlier candidates' items.

Pure numpy and scipy: arrays in, arrays out. Who has those arrays is `search/past.py`'s business.
"""

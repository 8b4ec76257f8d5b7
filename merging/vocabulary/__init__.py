"""Vocabularies: which row of an embedding is which token, in every model and in the merge.

`opening.align` compares the models of a study; `rows` permutes tensors; `files` and `ids` write the output's
tokenizer and configuration.
"""

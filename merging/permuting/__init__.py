"""Models that were trained apart, brought into one order of hidden units: what may be permuted, matched, written."""

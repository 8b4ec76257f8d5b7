"""The live model behind lm-eval's interface: stock scores, computed with less."""

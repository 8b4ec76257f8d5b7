"""What a candidate is worth. The only home of lm_eval."""

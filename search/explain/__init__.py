"""What the winner owes to what: it is scored with parts changed, and the trials say what scores depended on."""

"""Floor 4: the only room that speaks HTTP to rails, and the inbox of what they tell us."""

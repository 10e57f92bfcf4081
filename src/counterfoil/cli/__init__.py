"""Floor 5: the command line. Commands work on the database through the house, as the actor ``system/cli``."""

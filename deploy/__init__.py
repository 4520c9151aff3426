"""How the switch and what it stands on are put on machines."""

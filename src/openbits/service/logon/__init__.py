"""Who is logged on (inventory I2; architecture, section 4): sources of facts, and the one that is in force."""

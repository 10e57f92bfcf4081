"""The right to run: licenses, their signed keys, and the machines they are activated on."""

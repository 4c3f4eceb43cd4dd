"""A large fleet: simulated hosts, with the agent's own uplink, against one control plane with its journal on disk.

For each size a fleet goes through the phases of `phases`: it joins, connects, gets its tasks, rests, is rolled, loses
its control plane, and then a tenth of its hosts. `growth` says how each figure grows with the fleet.
"""

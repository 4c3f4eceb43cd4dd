"""What must hold in a simulation: after every step, and at rest. One module per group of invariants.

history       1   durable before told; what is loaded is a beginning of what was committed
tasks         2, 3, 7, 10   statuses advance, hosts stay, no end is invented, each has a reason
hosts         4   no host is over-committed, none gets tasks while it drains
assignments   5   complete sets and increments fold to the same
containers    6, 9   exit codes, containers that nobody asked for, what isn't ours, what runs twice
services      bounds, deployments, failures counted once, silence before replacement
pace          crash loops are delayed
promises      what the API answered
convergence, rest   7, 8   everything converges, and then nothing is written
"""

"""One task's life on this host: `step` and `absorb` decide, purely; `runner` acts, thinly.

model     what is known of a task and its containers, and what is in flight
messages  facts (what happened) and actions (what to do)
graph     dependsOn: may this container start, may it stop, or can it never start
restart   the restart policy
absorb    state + fact -> state
step      state -> actions, next wake time; `advance` is both, sealed under a report number
report    state -> what the control plane is told
perform   action -> calls of the Engine -> facts
runner    the loop that owns one task's state
"""

"""EventBridge: rules of the default event bus that match events or have a schedule, their targets, connections and API
destinations. Other buses, and other targets than ECS, API destinations and log groups, are refused by name.
"""

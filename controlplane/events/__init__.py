"""Events: every change as an EventBridge document, in a durable stream, and who is told of them."""

# A thread takes a connection and waits for its request. Otherwise connections wait in Puma's reactor,
# and one whose request is still on its way when Puma is told to stop is closed unanswered.
queue_requests false

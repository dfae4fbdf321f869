//! Private RabbitMQ and Redis servers, a faulty network and waiting for states; for tests, never shipped.

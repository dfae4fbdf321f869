//! RabbitMQ: topology, connection, confirmed publishing, consuming and dead letters.

//! Held connections to the server: made through the pool, shared by many calls at once, replaced after an error.
//!
//! It does not know what is sent. A connection is taken out of the pool once and kept, because the pool asks the
//! server for a sign of life each time it hands one out: a round trip for every call.

use crate::StoreError;
use crate::script::{Call, Script};
use deadpool_redis::{Manager, Pool, Runtime};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionInfo, Pipeline, Value};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a call waits for the pool itself, which has nobody else to serve.
const POOL_WAIT: Duration = Duration::from_millis(250);
/// How long the pool may take to look at a connection that it kept; ours are taken out, so it keeps none.
const POOL_RECYCLE: Duration = Duration::from_millis(500);
/// After a failed attempt to connect, calls fail at once for this long instead of queueing for the next attempt.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// What a call may take beyond the client's own deadline, before it is given up from outside.
const GRACE: Duration = Duration::from_millis(250);

/// The held connections.
pub(crate) struct Connections {
    pool: Pool,
    slots: Vec<Slot>,
    connect_timeout: Duration,
    response_timeout: Duration,
}

#[derive(Default)]
struct Slot {
    held: Mutex<Held>,
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late error does not discard the one that replaced its own.
    number: u64,
    failed: Option<(Instant, StoreError)>,
}

impl Connections {
    pub(crate) fn new(
        server: ConnectionInfo,
        count: usize,
        connect_timeout: Duration,
        response_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect_timeout))
            .set_response_timeout(Some(response_timeout));
        let pool = Pool::builder(Manager::new_with_config(server, config)?)
            .max_size(count)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(connect_timeout))
            .recycle_timeout(Some(POOL_RECYCLE))
            .build()
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let slots = (0..count).map(|_| Slot::default()).collect();
        Ok(Self {
            pool,
            slots,
            connect_timeout,
            response_timeout,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Sends all calls in one round trip over the connection of `shard`, and gives one result for each, in order.
    /// Scripts that the server does not know are loaded, and their calls repeated, once.
    ///
    /// # Cancel safety
    /// The calls may have their effect when the future is dropped.
    pub(crate) async fn run(&self, shard: usize, calls: Vec<Call>) -> Vec<Result<Value, StoreError>> {
        if calls.is_empty() {
            return Vec::new();
        }
        let (count, mut sent) = (calls.len(), pipeline(calls));
        let mut results = match self.send(shard, &sent).await {
            Ok(results) => results,
            Err(error) => return vec![Err(error); count],
        };
        let unknown: Vec<usize> = (0..count)
            .filter(|index| matches!(&results[*index], Ok(value) if is_unknown_script(value)))
            .collect();
        if !unknown.is_empty() {
            sent = sent
                .cmd_iter()
                .enumerate()
                .filter(|(index, _)| unknown.contains(index))
                .fold(pipeline(Script::load_all()), |mut repeated, (_, cmd)| {
                    repeated.add_command(cmd.clone());
                    repeated
                });
            let again = self.send(shard, &sent).await;
            let loads = sent.len() - unknown.len();
            for (place, index) in unknown.into_iter().enumerate() {
                results[index] = match &again {
                    Ok(values) => values[loads + place].clone(),
                    Err(error) => Err(error.clone()),
                };
            }
        }
        results
            .into_iter()
            .map(|result| self.checked(shard, result))
            .collect()
    }

    /// Sends one call.
    pub(crate) async fn run_one(&self, shard: usize, call: Call) -> Result<Value, StoreError> {
        self.run(shard, vec![call])
            .await
            .pop()
            .unwrap_or(Err(StoreError::Unreadable("no answer")))
    }

    async fn send(
        &self,
        shard: usize,
        calls: &Pipeline,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let slot = &self.slots[shard % self.slots.len()];
        let (mut connection, number) = self.connection(slot).await?;
        let answer = connection.send_packed_commands(calls, 0, calls.len());
        let answer = match tokio::time::timeout(self.response_timeout + GRACE, answer).await {
            Ok(answer) => answer.map_err(StoreError::from),
            Err(_) => Err(StoreError::TimedOut),
        };
        match answer {
            Ok(values) if values.len() == calls.len() => Ok(values.into_iter().map(Ok).collect()),
            Ok(_) => Err(StoreError::Unreadable("fewer answers than calls")),
            Err(error) => {
                slot.drop_connection(number);
                Err(error)
            }
        }
    }

    /// Turns an error of the server into ours. One that speaks of the server's role gives up the connection: its
    /// name may lead to another server by now.
    fn checked(&self, shard: usize, result: Result<Value, StoreError>) -> Result<Value, StoreError> {
        match result {
            Ok(Value::ServerError(error)) => {
                let error = StoreError::from_server(&error);
                if error.spoils_connection() {
                    let slot = &self.slots[shard % self.slots.len()];
                    let number = slot.held().number;
                    slot.drop_connection(number);
                }
                Err(error)
            }
            other => other,
        }
    }

    async fn connection(&self, slot: &Slot) -> Result<(MultiplexedConnection, u64), StoreError> {
        if let Some(ready) = slot.ready()? {
            return Ok(ready);
        }
        let patience = self.connect_timeout + self.response_timeout + POOL_WAIT;
        let turn = tokio::time::timeout(patience, slot.connecting.lock());
        let _turn = turn
            .await
            .map_err(|_| StoreError::Unavailable("no connection in time".to_owned()))?;
        if let Some(ready) = slot.ready()? {
            return Ok(ready);
        }
        // Whatever the server says while it is being connected to (too many clients, say) speaks of the server and not
        // of the call that happened to need a connection.
        let connected = self.connect().await.map_err(|error| match error {
            error if error.is_fault() => error,
            other => StoreError::Unavailable(other.to_string()),
        });
        match connected {
            Ok(connection) => {
                let mut held = slot.held();
                held.number += 1;
                held.connection = Some(connection.clone());
                held.failed = None;
                Ok((connection, held.number))
            }
            Err(error) => {
                slot.held().failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// A new connection to a server that knows the scripts.
    async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut connection = deadpool_redis::Connection::take(self.pool.get().await?);
        let load = pipeline(Script::load_all());
        let loaded = connection.send_packed_commands(&load, 0, load.len());
        let loaded = tokio::time::timeout(self.response_timeout + GRACE, loaded).await;
        let unanswered = || StoreError::Unavailable("it accepts connections and does not answer".to_owned());
        let answers = loaded
            .map_err(|_| unanswered())?
            .map_err(|error| match StoreError::from(error) {
                StoreError::TimedOut => unanswered(),
                other => other,
            })?;
        for answer in answers {
            if let Value::ServerError(error) = answer {
                return Err(StoreError::from_server(&error));
            }
        }
        Ok(connection)
    }
}

impl Slot {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, if there is one; the last error, if it is so fresh that trying again is too soon.
    fn ready(&self) -> Result<Option<(MultiplexedConnection, u64)>, StoreError> {
        let held = self.held();
        match (&held.connection, &held.failed) {
            (Some(connection), _) => Ok(Some((connection.clone(), held.number))),
            (None, Some((at, error))) if at.elapsed() < RECONNECT_PAUSE => Err(error.clone()),
            _ => Ok(None),
        }
    }

    fn drop_connection(&self, number: u64) {
        let mut held = self.held();
        if held.number == number {
            held.connection = None;
        }
    }
}

fn pipeline(calls: Vec<Call>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(calls.len());
    for call in calls {
        pipeline.add_command(call.cmd);
    }
    pipeline
}

fn is_unknown_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

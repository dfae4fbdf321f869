//! What tests ask of a running node: virtual hosts, policies, alarms, depths, and things taken away from under a client.
//!
//! Counts are exact: quorum queues are asked at their leader, not through the statistics that lag by seconds.

use std::sync::Arc;

use super::RabbitMq;
use super::shell::binary;
use crate::poll::WaitError;
use crate::process::Process;

/// Who the node's log names as the author of these changes.
const ACTOR: &str = "<<\"testbed\">>";

/// Why a node did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// It does not run.
    #[error("the node does not run")]
    NotRunning,
    /// It did not answer in time; it may be frozen.
    #[error("the node did not answer")]
    Silent(#[from] WaitError),
    /// It answered with an error, in Erlang's words.
    #[error("the node refused: {0}")]
    Refused(String),
    /// It answered something that is not what was asked for.
    #[error("the node's answer makes no sense: {0}")]
    Odd(String),
}

/// One queue at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    /// Its name.
    pub name: String,
    /// Waiting for a consumer.
    pub ready: u64,
    /// Delivered and neither acked nor returned.
    pub unacked: u64,
    /// Consumers attached.
    pub consumers: u64,
}

impl RabbitMq {
    /// Evaluates an Erlang expression inside the node; its value must be text (an iolist). For what no method does.
    ///
    /// # Errors
    /// [`ControlError`]; a wrong expression shows as [`ControlError::Silent`] and in the node's log.
    pub async fn eval(&self, expression: &str) -> Result<String, ControlError> {
        let process: Option<Arc<Process>> = self.slot().clone();
        let process = process
            .filter(|process| process.exit_status().is_none())
            .ok_or(ControlError::NotRunning)?;
        self.shell.ask(&process, expression).await
    }

    /// Starts the management plugin, now and at every later start.
    pub(super) async fn enable_management(&self) -> Result<(), ControlError> {
        self.eval(
            "File = os:getenv(\"RABBITMQ_ENABLED_PLUGINS_FILE\"), \
             ok = file:write_file(File, \"[rabbitmq_management].\\n\"), \
             case rabbit_plugins:ensure(File) of {ok, _, _} -> [] end",
        )
        .await
        .map(drop)
    }

    /// Makes a fresh virtual host that `guest` may use, and returns its name.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn vhost(&self) -> Result<String, ControlError> {
        let name = Self::vhost_name();
        let vhost = binary(&name);
        let all = "<<\".*\">>";
        self.eval(&format!(
            "case rabbit_vhost:add({vhost}, {ACTOR}) of ok -> ok end, \
             ok = rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, {vhost}, {all}, {all}, {all}, {ACTOR}), []"
        ))
        .await?;
        Ok(name)
    }

    /// Removes a virtual host with all that is in it; its connections are closed.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn delete_vhost(&self, vhost: &str) -> Result<(), ControlError> {
        self.eval(&format!("rabbit_vhost:delete({}, {ACTOR}), []", binary(vhost)))
            .await
            .map(drop)
    }

    /// Sets a policy on the queues whose names match `pattern`; `definition` is a JSON object.
    ///
    /// # Errors
    /// [`ControlError`]; `Refused` when the definition is not valid on this broker.
    pub async fn set_policy(
        &self,
        vhost: &str,
        name: &str,
        pattern: &str,
        definition: &str,
    ) -> Result<(), ControlError> {
        let (vhost, name) = (binary(vhost), binary(name));
        let (pattern, definition) = (binary(pattern), binary(definition));
        self.eval(&format!(
            "case rabbit_policy:parse_set({vhost}, {name}, {pattern}, {definition}, 0, <<\"queues\">>, {ACTOR}) of \
             ok -> []; Other -> error(Other) end"
        ))
        .await
        .map(drop)
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn clear_policy(&self, vhost: &str, name: &str) -> Result<(), ControlError> {
        let (vhost, name) = (binary(vhost), binary(name));
        self.eval(&format!(
            "case rabbit_policy:delete({vhost}, {name}, {ACTOR}) of ok -> [] end"
        ))
        .await
        .map(drop)
    }

    /// Raises or clears the memory alarm of the whole node: publishing connections are blocked at once. Never on
    /// the shared node.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn set_memory_alarm(&self, raised: bool) -> Result<(), ControlError> {
        let expression = if raised {
            "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}), []"
        } else {
            "rabbit_alarm:clear_alarm({resource_limit, memory, node()}), []"
        };
        self.eval(expression).await.map(drop)
    }

    /// All queues of a virtual host, by name.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn queues(&self, vhost: &str) -> Result<Vec<QueueState>, ControlError> {
        // A quorum queue answers only as the leader: right after a start its copy may still lag behind its log. A queue of
        // one connection goes with it, while it is asked.
        let expression = format!(
            "lists:map(fun(Q) -> \
               {{resource, _, queue, Name}} = amqqueue:get_name(Q), \
               Total = fun(Of) -> {{ok, {{_, N}}, _}} = ra:local_query(amqqueue:get_pid(Q), Of), N end, \
               {{Ready, Unacked}} = case amqqueue:get_type(Q) of \
                 rabbit_quorum_queue -> \
                   case ets:lookup(ra_state, element(1, amqqueue:get_pid(Q))) of \
                     [{{_, leader}}] -> ok; Other -> error({{no_leader, Name, Other}}) end, \
                   {{Total(fun rabbit_fifo:query_messages_ready/1), \
                     Total(fun rabbit_fifo:query_messages_checked_out/1)}}; \
                 _ -> [{{_, R}}, {{_, U}}] = rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]), \
                   {{R, U}} \
               end, \
               io_lib:format(\"~b ~b ~b ~ts~n\", [Ready, Unacked, length(rabbit_amqqueue:consumers(Q)), Name]) \
             end, [Q || Q <- rabbit_amqqueue:list({}), amqqueue:get_exclusive_owner(Q) =:= none])",
            binary(vhost)
        );
        let listing = self.eval(&expression).await?;
        let mut queues = listing.lines().map(parse_queue).collect::<Result<Vec<_>, _>>()?;
        queues.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(queues)
    }

    /// One queue.
    ///
    /// # Errors
    /// [`ControlError`]; `Refused` when there is no such queue.
    pub async fn queue(&self, vhost: &str, queue: &str) -> Result<QueueState, ControlError> {
        let found = self
            .queues(vhost)
            .await?
            .into_iter()
            .find(|state| state.name == queue);
        found.ok_or_else(|| ControlError::Refused(format!("there is no queue {queue}")))
    }

    /// Drops what is ready in a queue.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn purge(&self, vhost: &str, queue: &str) -> Result<(), ControlError> {
        let queue = resource(vhost, "queue", queue);
        self.eval(&format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup({queue}), {{ok, _}} = rabbit_amqqueue:purge(Q), []"
        ))
        .await
        .map(drop)
    }

    /// Stops a quorum queue in its tracks, or lets it go on; meanwhile it writes nothing, and what is sent to it waits.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn suspend_queue(&self, vhost: &str, queue: &str, stands: bool) -> Result<(), ControlError> {
        let queue = resource(vhost, "queue", queue);
        let verb = if stands { "suspend" } else { "resume" };
        self.eval(&format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup({queue}), ok = sys:{verb}(amqqueue:get_pid(Q)), []"
        ))
        .await
        .map(drop)
    }

    /// Deletes a queue, whatever is in it and whoever consumes from it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn delete_queue(&self, vhost: &str, queue: &str) -> Result<(), ControlError> {
        let queue = resource(vhost, "queue", queue);
        self.eval(&format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup({queue}), \
             case rabbit_amqqueue:delete(Q, false, false, {ACTOR}) of {{ok, _}} -> [] end"
        ))
        .await
        .map(drop)
    }

    /// Deletes an exchange with its bindings.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn delete_exchange(&self, vhost: &str, exchange: &str) -> Result<(), ControlError> {
        let exchange = resource(vhost, "exchange", exchange);
        self.eval(&format!(
            "case rabbit_exchange:delete({exchange}, false, {ACTOR}) of ok -> [] end"
        ))
        .await
        .map(drop)
    }

    /// Removes every binding from an exchange to a queue, whatever its key.
    ///
    /// # Errors
    /// [`ControlError`]; `Refused` when there is none.
    pub async fn unbind(&self, vhost: &str, exchange: &str, queue: &str) -> Result<(), ControlError> {
        let (exchange, queue) = (
            resource(vhost, "exchange", exchange),
            resource(vhost, "queue", queue),
        );
        self.eval(&format!(
            "[_ | _] = Bindings = rabbit_binding:list_for_source_and_destination({exchange}, {queue}), \
             [case rabbit_binding:remove(B, {ACTOR}) of ok -> ok end || B <- Bindings], []"
        ))
        .await
        .map(drop)
    }

    /// How many connections a virtual host has.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn connection_count(&self, vhost: &str) -> Result<usize, ControlError> {
        let count = format!(
            "integer_to_list(length(rabbit_connection_tracking:list({})))",
            binary(vhost)
        );
        let text = self.eval(&count).await?;
        text.parse().map_err(|_| ControlError::Odd(text))
    }

    /// Closes every connection of a virtual host, as an operator would.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn close_all_connections(&self, vhost: &str) -> Result<(), ControlError> {
        self.eval(&format!(
            "rabbit_connection_tracking:close_connections(rabbit_connection_tracking:list({}), \"closed by a test\", 0), []",
            binary(vhost)
        ))
        .await
        .map(drop)
    }
}

fn resource(vhost: &str, kind: &str, name: &str) -> String {
    format!("rabbit_misc:r({}, {kind}, {})", binary(vhost), binary(name))
}

fn parse_queue(line: &str) -> Result<QueueState, ControlError> {
    let odd = || ControlError::Odd(line.to_owned());
    let mut parts = line.splitn(4, ' ');
    let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or_else(odd);
    let (ready, unacked, consumers) = (number()?, number()?, number()?);
    let name = parts.next().ok_or_else(odd)?.to_owned();
    Ok(QueueState {
        name,
        ready,
        unacked,
        consumers,
    })
}

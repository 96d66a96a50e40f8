//! Half steps that wait for the shard's thread. What several clients asked for meanwhile is computed as one, up to
//! `runtime.clients_at_once`; whoever has waited longest is always among them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use actix::{Message, Response};
use fellrec::ids::{ClientId, StepId};
use fellrec::split::{BodyGradient, BodySession, HalfStep, HiddenStates, SplitError, Stage};
use fellrec::told::chain;
use fellrec::training::Timed;
use tokio::sync::oneshot;
use tracing::{debug, warn};

/// Tells a shard to compute what has waited longest.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ComputeNext;

/// What a half step is answered.
pub type HalfStepAnswer<T> = Result<Timed<T>, SplitError>;

/// A half step that waits.
#[derive(Debug)]
struct Waiting<T> {
    arrival: u64,
    client: ClientId,
    step: StepId,
    hidden: HiddenStates,
    answer: oneshot::Sender<HalfStepAnswer<T>>,
}

/// All that wait, by direction, oldest first.
#[derive(Debug)]
pub struct Queue {
    forward: VecDeque<Waiting<HiddenStates>>,
    backward: VecDeque<Waiting<BodyGradient>>,
    arrivals: u64,
    at_once: usize,
}

impl Queue {
    /// A queue that lets `at_once` clients through together.
    pub fn new(at_once: usize) -> Self {
        Self { forward: VecDeque::new(), backward: VecDeque::new(), arrivals: 0, at_once }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.forward.is_empty() && self.backward.is_empty()
    }

    /// Puts a forward pass at the end.
    pub fn forward(
        &mut self,
        client: ClientId,
        step: StepId,
        hidden: HiddenStates,
    ) -> Response<HalfStepAnswer<HiddenStates>> {
        self.arrivals += 1;
        wait(&mut self.forward, self.arrivals, client, step, hidden)
    }

    /// Puts a backward pass at the end.
    pub fn backward(
        &mut self,
        client: ClientId,
        step: StepId,
        grad: HiddenStates,
    ) -> Response<HalfStepAnswer<BodyGradient>> {
        self.arrivals += 1;
        wait(&mut self.backward, self.arrivals, client, step, grad)
    }

    /// Computes what has waited longest, and with it what others wait for in the same direction.
    pub fn compute(&mut self, stage: &Stage, sessions: BTreeMap<ClientId, &mut BodySession>) {
        let arrival = |waiting: Option<u64>| waiting.unwrap_or(u64::MAX);
        let forward = arrival(self.forward.front().map(|waiting| waiting.arrival));
        let backward = arrival(self.backward.front().map(|waiting| waiting.arrival));
        if forward < backward {
            compute(take(&mut self.forward, self.at_once), sessions, |asked| {
                stage.forward_each(asked)
            });
        } else {
            compute(take(&mut self.backward, self.at_once), sessions, |asked| {
                stage.backward_each(asked)
            });
        }
    }
}

fn wait<T: 'static>(
    queue: &mut VecDeque<Waiting<T>>,
    arrival: u64,
    client: ClientId,
    step: StepId,
    hidden: HiddenStates,
) -> Response<HalfStepAnswer<T>> {
    let (answer, answered) = oneshot::channel();
    queue.push_back(Waiting { arrival, client, step, hidden, answer });
    // Without an answer the shard has ended, and whoever asked is told so.
    let lost = move |_| Err(SplitError::NoSession { client });
    Response::fut(async move { answered.await.unwrap_or_else(lost) })
}

/// The oldest `at_once`, one a client.
fn take<T>(queue: &mut VecDeque<Waiting<T>>, at_once: usize) -> Vec<Waiting<T>> {
    let mut taken: Vec<Waiting<T>> = Vec::new();
    let mut index = 0;
    while taken.len() < at_once && index < queue.len() {
        if taken.iter().any(|other| other.client == queue[index].client) {
            index += 1;
        } else {
            taken.extend(queue.remove(index));
        }
    }
    taken
}

/// Answers those that wait. A half step's seconds are its share of the whole, by elements.
fn compute<T>(
    waiting: Vec<Waiting<T>>,
    mut sessions: BTreeMap<ClientId, &mut BodySession>,
    run: impl FnOnce(&mut [HalfStep<'_>]) -> Vec<Result<T, SplitError>>,
) {
    let (mut askers, mut found) = (Vec::new(), Vec::new());
    for Waiting { client, step, hidden, answer, .. } in waiting {
        match sessions.remove(&client) {
            Some(session) => {
                askers.push((client, answer, hidden.tensor().numel() as f64, step));
                found.push((session, step, hidden));
            }
            // Whoever asked may have stopped waiting; so below.
            None => drop(answer.send(Err(SplitError::UnknownStep { step }))),
        }
    }
    let asked = found.iter_mut();
    let asked = asked.map(|(session, step, hidden)| HalfStep { session, step: *step, hidden });
    let mut asked: Vec<HalfStep<'_>> = asked.collect();
    let started = Instant::now();
    let answers = run(&mut asked);
    let seconds = started.elapsed().as_secs_f64();
    let all: f64 = askers.iter().map(|(_, _, elements, _)| elements).sum();
    let clients = askers.len();
    for ((client, answer, elements, step), value) in askers.into_iter().zip(answers) {
        debug!(%client, %step, clients, seconds, "half step done");
        if let Err(error) = &value
            && !error.is_retryable()
        {
            warn!(%client, error = chain(error), "a half step is refused");
        }
        let timed = value.map(|value| Timed { value, seconds: seconds * elements / all });
        if answer.send(timed).is_err() {
            debug!(%client, "nobody waits for a half step any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use fellrec::ids::Round;
    use tch::{Device, Kind, Tensor};

    use super::*;

    fn waiting(clients: &[u32]) -> VecDeque<Waiting<HiddenStates>> {
        let one = |(arrival, client): (usize, &u32)| Waiting {
            arrival: arrival as u64,
            client: ClientId(*client),
            step: StepId { round: Round(0), step: 0 },
            hidden: HiddenStates::new(&Tensor::zeros([1, 1, 1], (Kind::Float, Device::Cpu))),
            answer: oneshot::channel().0,
        };
        clients.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_oldest_go_together_and_nobody_twice() {
        let mut queue = waiting(&[3, 3, 1, 4, 1, 5]);
        let next = |queue: &mut VecDeque<_>, at_once| -> Vec<u64> {
            take(queue, at_once).iter().map(|taken: &Waiting<HiddenStates>| taken.arrival).collect()
        };
        assert_eq!(next(&mut queue, 3), [0, 2, 3]);
        assert_eq!(next(&mut queue, 1), [1]);
        assert_eq!(next(&mut queue, 8), [4, 5]);
        assert!(next(&mut queue, 8).is_empty());
    }
}

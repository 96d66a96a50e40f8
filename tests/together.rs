//! Claims about passes of several clients as one (`runtime.clients_at_once`): each client gets what it gets alone
//! up to rounding, whoever it is computed with, and nobody's mistake reaches another.

mod common;

use common::{
    Ends, SEED, architecture, backbone, lora, model, optimizer, split, stage_of, step_id,
};
use fellrec::config::{ModelConfig, OrNone, Trainable};
use fellrec::ids::ClientId;
use fellrec::model::cut::{Cut, Place};
use fellrec::model::layout::Layout;
use fellrec::model::slice::Slice;
use fellrec::model::start::StartingPoint;
use fellrec::seed;
use fellrec::split::{BodySession, HalfStep, HiddenStates, SplitError, Stage, StepPlan};
use fellrec::training::{AdamW, TrainablePart};
use rand::Rng;
use tch::{Device, Kind, Tensor};

const PLAN: StepPlan = StepPlan { learning_rate: 1e-2, grad_scale: 1.0 };
const PLACE: Place = Place::Stage(0);
/// Batch and positions of each client.
const SHAPES: [[i64; 2]; 4] = [[2, 5], [3, 9], [1, 1], [4, 7]];

fn stage(ends: Ends) -> Stage {
    tch::set_num_threads(1);
    let model = ModelConfig { init_std: 0.3, ..model(Trainable::Lora) };
    let architecture = architecture(ends, &model);
    let cut = Cut::new(architecture.layers, &split(1, 1, OrNone::None));
    let ends = backbone(ends, &architecture);
    let layout = Layout::new(&architecture, Trainable::Lora, &lora(), cut, ends.as_ref());
    let start = StartingPoint::random(SEED);
    let base = layout.frozen_base(&[PLACE], &start, Kind::Float, Device::Cpu).expect("drawn");
    stage_of(&layout, PLACE, base, Kind::Float, true)
}

fn sessions(stage: &Stage) -> Vec<BodySession> {
    let start = StartingPoint::random(SEED);
    let slice = stage.layout.initial_slice(PLACE, &start).expect("drawn");
    let session = |client: u32| {
        let part = TrainablePart::new(&slice, AdamW::new(&optimizer()), Device::Cpu);
        // With a proximal term, so that one added twice shows.
        BodySession::new(stage, ClientId(client), part.anchored(&slice, 0.5))
    };
    (0..SHAPES.len() as u32).map(session).collect()
}

fn drawn(stage: &Stage, name: &str, client: usize, step: u64) -> HiddenStates {
    let [batch, length] = SHAPES[client];
    let width = stage.layout.architecture.hidden;
    let mut rng = seed::rng(SEED, name, &[client as u64, step]);
    let values: Vec<f32> =
        (0..batch * length * width).map(|_| rng.random_range(-1.0..1.0)).collect();
    HiddenStates::new(&Tensor::from_slice(&values).view([batch, length, width]))
}

/// Hidden states of a step; texts of different lengths where blocks look both ways.
fn hidden(stage: &Stage, ends: Ends, client: usize, step: u64) -> HiddenStates {
    let hidden = drawn(stage, "test hidden states", client, step);
    if ends != Ends::Texts {
        return hidden;
    }
    let [batch, length] = SHAPES[client];
    let lengths: Vec<i64> = (0..batch).map(|row| (length - row).max(1)).collect();
    hidden.with_lengths(Some(&Tensor::from_slice(&lengths)))
}

/// Answers of every half step, and what the clients have trained.
type Trace = (Vec<Tensor>, Vec<Slice>);

/// Makes three steps. `groups` says who is computed with whom at each half step.
fn train(ends: Ends, groups: impl Fn(u64, bool) -> Vec<Vec<usize>>) -> Trace {
    let stage = stage(ends);
    let mut sessions = sessions(&stage);
    let mut answers = Vec::new();
    for number in 0..3 {
        for forward in [true, false] {
            let mut each: Vec<Option<Tensor>> = SHAPES.iter().map(|_| None).collect();
            for group in groups(number, forward) {
                let sent = |client: &usize| match forward {
                    true => hidden(&stage, ends, *client, number),
                    false => drawn(&stage, "test gradients", *client, number),
                };
                let sent: Vec<HiddenStates> = group.iter().map(sent).collect();
                let mut asked: Vec<HalfStep<'_>> = sessions
                    .iter_mut()
                    .enumerate()
                    .filter_map(|(client, session)| {
                        let place = group.iter().position(|member| *member == client)?;
                        Some(HalfStep { session, step: step_id(number), hidden: &sent[place] })
                    })
                    .collect();
                let got: Vec<Tensor> = if forward {
                    let got = stage.forward_each(&mut asked).into_iter();
                    got.map(|answer| answer.expect("its turn").tensor().copy()).collect()
                } else {
                    let got = stage.backward_each(&mut asked).into_iter();
                    got.map(|answer| {
                        let answer = answer.expect("pending");
                        let norm = Tensor::from(answer.squared_norm as f32).view([1]);
                        Tensor::cat(&[answer.hidden.tensor().flatten(0, -1), norm], 0)
                    })
                    .collect()
                };
                for (client, answer) in group.iter().zip(got) {
                    each[*client] = Some(answer);
                }
            }
            answers.extend(each.into_iter().map(|answer| answer.expect("everybody asked")));
        }
        for session in &mut sessions {
            session.step(step_id(number), PLAN).expect("pending");
        }
    }
    let slices = sessions.into_iter().map(|session| session.close().into_parts().0).collect();
    (answers, slices)
}

fn largest_difference((answers, slices): &Trace, (others, other_slices): &Trace) -> f64 {
    let tensors = |slices: &[Slice]| -> Vec<Tensor> {
        slices.iter().flat_map(|s| s.tensors.iter().map(|t| t.tensor.shallow_clone())).collect()
    };
    let (own, other) = (tensors(slices), tensors(other_slices));
    let pairs = answers.iter().zip(others).chain(own.iter().zip(&other));
    let relative =
        |a: &Tensor, b: &Tensor| ((a - b) / (a.abs() + 1.0)).abs().max().double_value(&[]);
    pairs.map(|(a, b)| relative(a, b)).fold(0.0, f64::max)
}

fn alone() -> Vec<Vec<usize>> {
    (0..SHAPES.len()).map(|client| vec![client]).collect()
}

fn check(ends: Ends) {
    let expected = train(ends, |_, _| alone());
    let moved = |slices: &[Slice]| slices.iter().map(|s| s.digest()).collect::<Vec<_>>();
    assert!(moved(&expected.1).windows(2).all(|pair| pair[0] != pair[1]), "each its own");
    let everybody = train(ends, |_, _| vec![vec![0, 1, 2, 3]]);
    let difference = largest_difference(&expected, &everybody);
    assert!(difference < 2e-5, "{ends:?}, all at once: {difference}");
    // Who goes back together need not have gone forward together.
    let mixed = train(ends, |step, forward| match (step % 2 == 0, forward) {
        (true, true) | (false, false) => vec![vec![0, 2], vec![1, 3]],
        _ => vec![vec![3], vec![0, 1, 2]],
    });
    let difference = largest_difference(&expected, &mixed);
    assert!(difference < 2e-5, "{ends:?}, in changing company: {difference}");
}

#[test]
fn causal_blocks_give_each_client_what_it_gets_alone() {
    check(Ends::Items);
}

#[test]
fn blocks_that_look_both_ways_give_each_client_what_it_gets_alone() {
    check(Ends::Texts);
}

/// A stale, a repeated, a misshapen and a good half step in one group.
#[test]
fn a_mistake_is_answered_to_the_one_who_made_it() {
    let stage = stage(Ends::Items);
    let mut sessions = sessions(&stage);
    let send = |client, step| hidden(&stage, Ends::Items, client, step);
    let expected: Vec<Tensor> = {
        let mut fresh = self::sessions(&stage);
        let one = |client: usize| fresh[client].forward(step_id(0), &send(client, 0));
        (0..4).map(one).map(|answer| answer.expect("its turn").tensor().copy()).collect()
    };
    // Client 0 has gone forward already; client 1 is ahead of itself; client 2 sends what nobody takes.
    sessions[0].forward(step_id(0), &send(0, 0)).expect("its turn");
    let wide = HiddenStates::new(&Tensor::zeros([1, 1, 3], (Kind::Float, Device::Cpu)));
    let sent = [send(0, 0), send(1, 0), wide, send(3, 0)];
    let steps = [step_id(0), step_id(7), step_id(0), step_id(0)];
    let mut asked: Vec<HalfStep<'_>> = sessions
        .iter_mut()
        .zip(steps.iter().zip(&sent))
        .map(|(session, (step, hidden))| HalfStep { session, step: *step, hidden })
        .collect();
    let answers = stage.forward_each(&mut asked);
    let close = |answer: &Result<HiddenStates, SplitError>, expected: &Tensor| {
        let answer = answer.as_ref().expect("computed");
        (answer.tensor() - expected).abs().max().double_value(&[]) < 1e-5
    };
    assert!(close(&answers[0], &expected[0]) && close(&answers[3], &expected[3]));
    assert!(matches!(answers[1], Err(SplitError::UnknownStep { .. })), "{:?}", answers[1]);
    assert!(matches!(answers[2], Err(SplitError::ShapeMismatch { .. })), "{:?}", answers[2]);
    // The gradients of those that are pending; one of them for another batch.
    let sent = [send(0, 1), send(1, 1), send(2, 1), send(1, 1)];
    let mut asked: Vec<HalfStep<'_>> = sessions
        .iter_mut()
        .zip(&sent)
        .map(|(session, hidden)| HalfStep { session, step: step_id(0), hidden })
        .collect();
    let answers = stage.backward_each(&mut asked);
    assert!(answers[0].is_ok(), "{:?}", answers[0]);
    assert!(matches!(answers[1], Err(SplitError::UnknownStep { .. })), "{:?}", answers[1]);
    assert!(matches!(answers[3], Err(SplitError::OtherShape { .. })), "{:?}", answers[3]);
    sessions[3].backward(step_id(0), &send(3, 1)).expect("still pending");
}

/// As those have that a client opens for embeddings: nobody computes with another's adapters on its account.
#[test]
fn a_session_without_adapters_is_computed_by_itself() {
    let stage = stage(Ends::Items);
    let trained = |count: usize| {
        let mut sessions = sessions(&stage);
        sessions.truncate(count);
        for session in &mut sessions {
            // Adapters change nothing before their first step.
            session.forward(step_id(0), &hidden(&stage, Ends::Items, 0, 0)).expect("its turn");
            session.backward(step_id(0), &hidden(&stage, Ends::Items, 0, 1)).expect("pending");
            session.step(step_id(0), PLAN).expect("pending");
        }
        let nothing = TrainablePart::new(&Slice::default(), AdamW::new(&optimizer()), Device::Cpu);
        sessions.insert(0, BodySession::new(&stage, ClientId(9), nothing));
        sessions
    };
    let send = |client| hidden(&stage, Ends::Items, client, 1);
    let step = |number: usize| step_id(u64::from(number > 0));
    let (mut alone, mut together) = (trained(2), trained(2));
    let expected: Vec<Tensor> = (0..3)
        .map(|n| alone[n].forward(step(n), &send(n)).expect("its turn").tensor().copy())
        .collect();
    let sent = [send(0), send(1), send(2)];
    let mut asked: Vec<HalfStep<'_>> = together
        .iter_mut()
        .enumerate()
        .map(|(n, session)| HalfStep { session, step: step(n), hidden: &sent[n] })
        .collect();
    for (answer, expected) in stage.forward_each(&mut asked).into_iter().zip(expected) {
        let answer = answer.expect("computed");
        let difference = (answer.tensor() - expected).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{difference}");
    }
}

/// What the config never makes a client send is refused before anything is computed.
#[test]
fn more_than_the_config_allows_is_refused() {
    let mut stage = stage(Ends::Items);
    stage.limits.rows = 2;
    stage.limits.positions = 6;
    let mut session = sessions(&stage).remove(0);
    let width = stage.layout.architecture.hidden;
    let of = |rows, positions, kind| {
        HiddenStates::new(&Tensor::zeros([rows, positions, width], (kind, Device::Cpu)))
    };
    for beyond in [
        of(3, 5, Kind::Float),
        of(2, 7, Kind::Float),
        of(2, 5, Kind::BFloat16),
        of(0, 5, Kind::Float),
    ] {
        for answer in [session.forward(step_id(0), &beyond).err(), session.evaluate(&beyond).err()]
        {
            let text = answer.expect("refused").to_string();
            assert!(text.contains("at most [2, 6, 16] of Float"), "{text}");
        }
    }
    session.forward(step_id(0), &of(2, 6, Kind::Float)).expect("as large as allowed");
}

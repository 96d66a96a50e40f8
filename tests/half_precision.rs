//! Claims about a bf16 base: adapters and moments stay f32, a model learns with it, the cut changes no bit
//! there either, and its gradients are those of the f32 base within bf16's precision.

mod common;

use common::{Ends, Party, masks, model, split, step_id};
use fellrec::config::{ModelConfig, OrNone, SplitConfig, Trainable};
use fellrec::model::backbone::{Batch, Inputs};
use fellrec::model::slice::Slice;
use fellrec::split::StepPlan;
use tch::{Device, Kind, Tensor};

const PLAN: StepPlan = StepPlan { learning_rate: 1e-2, grad_scale: 1.0 };

fn party(kind: Kind, cut: &SplitConfig) -> Party {
    tch::set_num_threads(1);
    let model = ModelConfig { init_std: 0.3, dropout: 0.0, ..model(Trainable::Lora) };
    Party::built(kind, &model, Ends::Language { tied: true }, cut, false, 0.0)
}

fn batch() -> Batch {
    let ids = Tensor::arange(4 * 9, (Kind::Int64, Device::Cpu)).remainder(29);
    Batch {
        rows_m: Tensor::arange(4 * 9, (Kind::Int64, Device::Cpu)),
        labels_m: (&ids + 1).remainder(29),
        inputs: Inputs::Ids(ids.view([4, 9])),
    }
}

/// One step over whatever stages there are: the loss, and the squared norms of front, back and body.
fn step(party: &mut Party, number: u64) -> (f64, f64) {
    let (id, batch) = (step_id(number), batch());
    let (mut hidden, pending) = party.client.forward_front(&batch, masks(number));
    for stage in &mut party.stages {
        hidden = stage.forward(id, &hidden).expect("a fresh step");
    }
    let back = party.client.run_back(&pending, &hidden, &batch).expect("shapes agree");
    let (mut gradient, mut squared) = (back.hidden, 0.0);
    for stage in party.stages.iter_mut().rev() {
        let body = stage.backward(id, &gradient).expect("the forward pass is pending");
        squared += body.squared_norm;
        gradient = body.hidden;
    }
    party.client.backward_front(pending, &gradient).expect("shapes agree");
    let (front, back_norm) = party.client.squared_grad_norms();
    for stage in &mut party.stages {
        stage.step(id, PLAN).expect("gradients are pending");
    }
    party.client.step(PLAN);
    (back.loss_sum / batch.labels() as f64, front + back_norm + squared)
}

fn trained(party: Party) -> Slice {
    let (front, back) = party.client.close();
    let mut parts = vec![front, back];
    parts.extend(party.stages.into_iter().map(fellrec::split::BodySession::close));
    let mut tensors = Vec::new();
    for part in parts {
        let (slice, optimizer) = part.into_parts();
        for moments in optimizer.moments() {
            assert_eq!((moments.first.kind(), moments.second.kind()), (Kind::Float, Kind::Float));
        }
        tensors.extend(slice.tensors);
    }
    Slice::new(tensors)
}

fn cuts() -> [SplitConfig; 3] {
    [
        split(4, 0, OrNone::None),
        split(1, 1, OrNone::None),
        split(1, 1, OrNone::Some(vec![(1, 2), (2, 3)])),
    ]
}

#[test]
fn it_learns_with_f32_adapters_and_the_cut_changes_no_bit() {
    let run = |cut: &SplitConfig| {
        let mut party = party(Kind::BFloat16, cut);
        let crossing = party.client.forward_front(&batch(), masks(0)).0;
        assert_eq!(crossing.tensor().kind(), Kind::BFloat16, "half the bytes over the cut");
        let losses: Vec<f64> = (0..12).map(|number| step(&mut party, number).0).collect();
        (losses, trained(party))
    };
    let [whole, others @ ..] = cuts();
    let (losses, slice) = run(&whole);
    assert!(losses[11] < losses[0] - 0.3, "{losses:?}");
    assert!(slice.tensors.iter().all(|named| named.tensor.kind() == Kind::Float));
    for cut in &others {
        let (other_losses, other) = run(cut);
        assert_eq!(other_losses, losses, "cut {cut:?}");
        assert_eq!(other.digest(), slice.digest(), "cut {cut:?}");
    }
}

#[test]
fn its_gradients_are_those_of_the_f32_base_within_its_precision() {
    let cut = &cuts()[1];
    let ((half_loss, half_norm), (loss, norm)) =
        (step(&mut party(Kind::BFloat16, cut), 0), step(&mut party(Kind::Float, cut), 0));
    // 8 bits of precision: a relative rounding error of 2^-9 an operation, over some dozens of them.
    assert!((half_loss - loss).abs() < 0.02 * loss, "{half_loss} against {loss}");
    assert!((half_norm - norm).abs() < 0.1 * norm, "{half_norm} against {norm}");
    assert_ne!(half_loss, loss, "or it was no bf16");
}

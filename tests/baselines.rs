//! Claims about the baselines of method.md 9 over whole federations of actors.

mod common;

use common::federation::{Ended, small_config, undisturbed};
use fellrec::history::EventKind;
use fellrec::model::slice::Part;

/// Whether every client kept its own tensors, round by round.
fn nobody_mixed(ended: &Ended) -> Vec<bool> {
    let of_round = |event: &fellrec::history::RunEvent| match &event.kind {
        EventKind::RoundCommitted { mixing, .. } => {
            let rows = mixing.matrices().of(Part::Front).rows().enumerate();
            Some(rows.into_iter().all(|(client, row)| row[client] == 1.0))
        }
        _ => None,
    };
    ended.events.iter().filter_map(of_round).collect()
}

/// Fine-tuning takes rounds from the end and touches none before; each of them is as long as another.
#[test]
fn fine_tuning_is_fedavg_until_its_rounds_begin() {
    let plain = undisturbed(small_config(&["mixing.rule=fedavg"]));
    let tuned = undisturbed(small_config(&["mixing.rule=fedavg", "mixing.fine_tune_rounds=1"]));
    assert_eq!(nobody_mixed(&plain), [false; 3]);
    assert_eq!(nobody_mixed(&tuned), [false, false, true]);
    let (plain, tuned) = (plain.trace().slices, tuned.trace().slices);
    assert_eq!(tuned[..2], plain[..2]);
    assert_ne!(tuned[2], plain[2]);
}

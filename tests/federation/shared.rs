//! The mean that clients without a state of their own start from (protocol.md 2).

use std::collections::BTreeMap;

use fellrec::federation::shared::mean_slices;
use fellrec::ids::ClientId;
use fellrec::model::cut::Place;
use fellrec::model::slice::{Slice, Theta};

use crate::support::{flat, random_thetas};

fn slices(thetas: &[Theta]) -> BTreeMap<ClientId, BTreeMap<Place, Slice>> {
    let places = |theta: &Theta| {
        let Theta { front, body, back } = theta.deep_copy();
        BTreeMap::from([(Place::Front, front), (Place::Stage(0), body), (Place::Back, back)])
    };
    (0..).map(ClientId).zip(thetas.iter().map(places)).collect()
}

fn mean(thetas: &[Theta]) -> Theta {
    let mut places = mean_slices(&slices(thetas));
    let mut take = |place| places.remove(&place).unwrap();
    Theta { front: take(Place::Front), body: take(Place::Stage(0)), back: take(Place::Back) }
}

#[test]
fn it_is_the_unweighted_mean_number_by_number() {
    let thetas = random_thetas(3);
    let clients: Vec<Vec<f64>> = thetas.iter().map(flat).collect();
    for (index, got) in flat(&mean(&thetas)).into_iter().enumerate() {
        let expected = clients.iter().map(|numbers| numbers[index]).sum::<f64>() / 3.0;
        assert!((got - expected).abs() < 1e-7, "number {index}: got {got}, expected {expected}");
    }
}

#[test]
fn identical_clients_keep_every_bit_and_no_storage_is_shared() {
    let one = random_thetas(1).remove(0);
    let thetas = [one.deep_copy(), one.deep_copy(), one.deep_copy()];
    let mean = mean(&thetas);
    assert_eq!(mean.digest(), one.digest());
    let addresses = |theta: &Theta| -> Vec<usize> {
        theta.iter().map(|(_, named)| named.tensor.data_ptr() as usize).collect()
    };
    assert!(addresses(&mean).iter().all(|address| !addresses(&thetas[0]).contains(address)));
}

#[test]
fn nobody_has_no_mean() {
    assert!(mean_slices(&BTreeMap::new()).is_empty());
}

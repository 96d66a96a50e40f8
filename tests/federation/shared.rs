//! The mean that clients without a state of their own start from (protocol.md 2).

use fellrec::federation::shared::mean_theta;
use fellrec::model::slice::Theta;

use crate::support::{flat, random_thetas};

fn mean(thetas: &[Theta]) -> Theta {
    mean_theta(&thetas.iter().collect::<Vec<_>>())
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

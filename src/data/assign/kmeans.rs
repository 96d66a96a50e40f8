//! Lloyd's k-means with seeded k-means++ starts (D. Arthur, S. Vassilvitskii, SODA 2007).

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::seed;

/// Starts tried; the one of least inertia stays.
const STARTS: u64 = 4;

/// Bound on the passes of one start; a few dozen are usual.
const MAX_PASSES: usize = 100;

/// Cluster of each of the points `[points, width]`, row-major. Every cluster of `0..count` has a member
/// as long as there are as many points: an empty one takes the point farthest from its centre.
pub(super) fn cluster(points: &[f64], width: usize, count: usize, run_seed: u64) -> Vec<usize> {
    let rows: Vec<&[f64]> = points.chunks(width).collect();
    let mut best = (f64::INFINITY, Vec::new());
    for start in 0..STARTS {
        let mut rng = seed::rng(run_seed, "k-means start", &[start]);
        let (inertia, labels) = lloyd(&rows, first_centres(&rows, count, &mut rng));
        if inertia < best.0 {
            best = (inertia, labels);
        }
    }
    best.1
}

/// k-means++: each next centre is a point drawn by its squared distance to the nearest centre so far.
fn first_centres(rows: &[&[f64]], count: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
    let mut centres = vec![rows[rng.random_range(0..rows.len())].to_vec()];
    let mut nearest = vec![f64::INFINITY; rows.len()];
    while centres.len() < count {
        let newest = &centres[centres.len() - 1];
        for (nearest, row) in nearest.iter_mut().zip(rows) {
            *nearest = nearest.min(squared_distance(row, newest));
        }
        let total: f64 = nearest.iter().sum();
        let mut left = rng.random::<f64>() * total;
        let drawn = nearest.iter().position(|&distance| {
            left -= distance;
            left < 0.0
        });
        // Fewer different points than clusters leave no distance to draw by: any point will do.
        let drawn = drawn.unwrap_or_else(|| rng.random_range(0..rows.len()));
        centres.push(rows[drawn].to_vec());
    }
    centres
}

/// Inertia (sum of squared distances) and labels where no point moves any more.
fn lloyd(rows: &[&[f64]], mut centres: Vec<Vec<f64>>) -> (f64, Vec<usize>) {
    let mut labels = vec![usize::MAX; rows.len()];
    let mut distances = vec![0.0; rows.len()];
    for _ in 0..MAX_PASSES {
        let mut moved = false;
        for (point, row) in rows.iter().enumerate() {
            let (label, distance) = nearest_centre(row, &centres);
            moved |= labels[point] != label;
            (labels[point], distances[point]) = (label, distance);
        }
        fill_empty(&mut labels, &mut distances, centres.len());
        if !moved {
            break;
        }
        move_centres(rows, &labels, &mut centres);
    }
    (distances.iter().sum(), labels)
}

fn nearest_centre(row: &[f64], centres: &[Vec<f64>]) -> (usize, f64) {
    let mut best = (0, f64::INFINITY);
    for (label, centre) in centres.iter().enumerate() {
        let distance = squared_distance(row, centre);
        if distance < best.1 {
            best = (label, distance);
        }
    }
    best
}

/// Gives each empty cluster the point that lies farthest from its centre and is not alone there.
fn fill_empty(labels: &mut [usize], distances: &mut [f64], count: usize) {
    let mut sizes = vec![0_usize; count];
    for &label in labels.iter() {
        sizes[label] += 1;
    }
    for empty in (0..count).filter(|&label| sizes[label] == 0).collect::<Vec<_>>() {
        let candidates = (0..labels.len()).filter(|&point| sizes[labels[point]] > 1);
        let farthest = candidates.max_by(|&a, &b| distances[a].total_cmp(&distances[b]));
        let Some(point) = farthest else { return };
        sizes[labels[point]] -= 1;
        sizes[empty] = 1;
        (labels[point], distances[point]) = (empty, 0.0);
    }
}

fn move_centres(rows: &[&[f64]], labels: &[usize], centres: &mut [Vec<f64>]) {
    let mut sizes = vec![0_usize; centres.len()];
    centres.iter_mut().for_each(|centre| centre.fill(0.0));
    for (&label, row) in labels.iter().zip(rows) {
        sizes[label] += 1;
        centres[label].iter_mut().zip(*row).for_each(|(sum, &value)| *sum += value);
    }
    for (centre, size) in centres.iter_mut().zip(sizes) {
        centre.iter_mut().for_each(|sum| *sum /= size.max(1) as f64);
    }
}

fn squared_distance(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_clouds_are_found() {
        let points: Vec<f64> =
            (0..60).flat_map(|i| [f64::from(i % 3) * 10.0, f64::from(i) * 0.01]).collect();
        let labels = cluster(&points, 2, 3, 7);
        for point in 0..60 {
            assert_eq!(labels[point], labels[point % 3]);
        }
        assert_eq!(labels, cluster(&points, 2, 3, 7));
    }

    #[test]
    fn no_cluster_is_empty_even_when_all_points_are_equal() {
        let labels = cluster(&[1.0; 10], 2, 4, 7);
        let mut sizes = [0; 4];
        labels.iter().for_each(|&label| sizes[label] += 1);
        assert!(sizes.iter().all(|&size| size > 0), "{sizes:?}");
    }
}

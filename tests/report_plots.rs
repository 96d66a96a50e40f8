//! Plots take any numbers and stay well-formed. What they look like was judged by eye.

use anyhow::Result;
use fellrec::report::plots::{
    Band, BarSeries, Labels, LineSeries, Stroke, grouped_bars, heat_map, line_plot,
};
use proptest::prelude::*;

const LABELS: Labels<'_> =
    Labels { title: "NDCG@10 <by> client & round", x: "round", y: "NDCG@10" };
const ODD: [f64; 8] =
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, -0.0, 0.5, -3e7];

fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("client-{index}")).collect()
}

fn line(name: &str, points: Vec<(u64, f64)>) -> LineSeries {
    LineSeries { name: name.to_owned(), points, stroke: Stroke::Solid }
}

/// One root element, opened and closed; no number that SVG cannot read.
fn assert_well_formed(svg: &str) {
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("\"inf"), "{svg}");
    assert!(svg.contains("&lt;by&gt; client &amp; round"), "the title is missing or not escaped");
}

fn circles(svg: &str) -> usize {
    svg.matches("<circle").count()
}

#[test]
fn a_band_stops_at_a_gap() -> Result<()> {
    let points = |middle| vec![(0, 0.1, 0.3), (1, 0.2, 0.4), (2, middle, 0.4), (3, 0.2, 0.5)];
    let band =
        |middle| [Band { name: Some("middle half".to_owned()), line: 0, points: points(middle) }];
    let polygons = |svg: &str| svg.matches("<polygon").count();
    let (whole, cut) =
        (line_plot(&LABELS, &band(0.1), &[])?, line_plot(&LABELS, &band(f64::NAN), &[])?);
    assert_well_formed(&cut);
    assert_eq!((polygons(&whole), polygons(&cut)), (1, 2));
    Ok(())
}

#[test]
fn empty_data_gives_an_empty_plot() -> Result<()> {
    assert_well_formed(&line_plot(&LABELS, &[], &[])?);
    assert_well_formed(&line_plot(&LABELS, &[], &[line("client-0", vec![])])?);
    assert_well_formed(&grouped_bars(&LABELS, &[], &[])?);
    assert_well_formed(&grouped_bars(&LABELS, &names(2), &[])?);
    assert_well_formed(&heat_map(&LABELS, &[], &[])?);
    assert_well_formed(&heat_map(&LABELS, &names(2), &[vec![], vec![]])?);
    Ok(())
}

#[test]
fn single_points_and_constants_have_axes() -> Result<()> {
    assert_well_formed(&line_plot(&LABELS, &[], &[line("one", vec![(0, 0.0)])])?);
    assert_well_formed(&line_plot(&LABELS, &[], &[line("late", vec![(u64::MAX, 1.0)])])?);
    assert_well_formed(&line_plot(
        &LABELS,
        &[],
        &[line("flat", vec![(0, 0.1), (1, 0.1), (2, 0.1)])],
    )?);
    let flat = BarSeries { name: "flat".to_owned(), values: vec![0.0, 0.0] };
    assert_well_formed(&grouped_bars(&LABELS, &names(2), &[flat])?);
    assert_well_formed(&heat_map(&LABELS, &names(2), &[vec![0.0, 0.0], vec![0.0, 0.0]])?);
    Ok(())
}

#[test]
fn a_value_that_is_not_finite_is_a_gap() -> Result<()> {
    let whole =
        line_plot(&LABELS, &[], &[line("a", vec![(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)])])?;
    let broken =
        line_plot(&LABELS, &[], &[line("a", vec![(0, 1.0), (1, f64::NAN), (2, 3.0), (3, 4.0)])])?;
    assert_well_formed(&broken);
    assert_eq!(circles(&whole) - circles(&broken), 1, "the other points stay");
    Ok(())
}

#[test]
fn odd_numbers_are_survived_by_every_kind() -> Result<()> {
    let points = ODD.iter().enumerate().map(|(round, value)| (round as u64, *value)).collect();
    assert_well_formed(&line_plot(&LABELS, &[], &[line("odd", points)])?);
    let bars = BarSeries { name: "odd".to_owned(), values: ODD.to_vec() };
    assert_well_formed(&grouped_bars(&LABELS, &names(ODD.len()), &[bars])?);
    assert_well_formed(&heat_map(&LABELS, &names(3), &[ODD.to_vec(), vec![], vec![1.0]])?);
    Ok(())
}

#[test]
fn a_thousand_clients_fit() -> Result<()> {
    let series: Vec<LineSeries> =
        names(1000).iter().map(|name| line(name, vec![(0, 0.1), (1, 0.2)])).collect();
    let svg = line_plot(&LABELS, &[], &series)?;
    assert_well_formed(&svg);
    assert!(svg.contains("and 98"), "the legend counts the names that do not fit");

    let bars = BarSeries { name: "after".to_owned(), values: vec![0.1; 1000] };
    assert_well_formed(&grouped_bars(&LABELS, &names(1000), &[bars])?);
    let svg = heat_map(&LABELS, &names(1000), &vec![vec![0.5; 1000]; 1000])?;
    assert_well_formed(&svg);
    assert!(svg.contains("first 100 of 1000"), "the heat map says what it leaves out");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any numbers whatever: no panic, no error, no unreadable coordinate.
    #[test]
    fn any_series_is_drawn(
        points in prop::collection::vec((any::<u64>(), any::<f64>()), 0..12),
        values in prop::collection::vec(any::<f64>(), 0..12),
    ) {
        assert_well_formed(&line_plot(&LABELS, &[], &[line("a", points)])?);
        let bars = BarSeries { name: "a".to_owned(), values: values.clone() };
        assert_well_formed(&grouped_bars(&LABELS, &names(6), &[bars])?);
        assert_well_formed(&heat_map(&LABELS, &names(1), &[values])?);
    }
}

//! Line charts as inline SVG; colors come from the page's style sheet.

use std::fmt::Write as _;

use crate::html::escape;

pub(crate) const WIDTH: f64 = 520.0;
pub(crate) const HEIGHT: f64 = 250.0;
pub(crate) const LEFT: f64 = 48.0;
pub(crate) const RIGHT: f64 = 52.0;
pub(crate) const TOP: f64 = 22.0;
pub(crate) const BOTTOM: f64 = 32.0;

/// Maximum points drawn; longer curves are binned and averaged.
pub(crate) const POINTS: usize = 400;
/// Maximum points with a tooltip.
const TOOLTIPS: usize = 120;

/// Maximum evaluations drawn; more are averaged in bins.
const EVALUATIONS: usize = 50;

/// A step and its value, if it has one.
pub(crate) type Point = (f64, Option<f64>);

/// The range of the vertical axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0 to 1, for a fraction.
    Share,
    /// From 0 to the largest value.
    FromZero,
    /// From the smallest value to the largest.
    Free,
}

/// The first step of a training stage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    pub(crate) step: f64,
    pub(crate) label: String,
}

/// One curve with its axes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chart<'a> {
    /// Accessible label.
    pub(crate) title: &'a str,
    /// CSS class with the curve's color.
    pub(crate) class: &'a str,
    pub(crate) scale: Scale,
    /// Value of each step, in order.
    pub(crate) points: &'a [Point],
    /// The smoothed curve, in order.
    pub(crate) smooth: &'a [Point],
    /// Values on held-out questions, in order.
    pub(crate) held_out: &'a [Point],
    pub(crate) marks: &'a [Mark],
}

/// Maps data to SVG coordinates.
pub(crate) struct Frame {
    pub(crate) x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    /// A frame that spans all steps and the ticks of the vertical axis.
    pub(crate) fn spanning(steps: impl Iterator<Item = f64>, ticks: &[f64]) -> Self {
        let (low, high) = span(steps).unwrap_or((0.0, 1.0));
        let high = if high > low { high } else { low + 1.0 };
        let y = (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0));
        Self { x: (low, high), y }
    }

    pub(crate) fn x(&self, step: f64) -> f64 {
        LEFT + (step - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    pub(crate) fn y(&self, value: f64) -> f64 {
        let share = (value - self.y.0) / (self.y.1 - self.y.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    /// The curve as SVG path data; it breaks where a value is missing.
    pub(crate) fn path(&self, points: &[Point]) -> String {
        let mut path = String::new();
        let mut pen_down = false;
        for &(step, value) in points {
            let Some(value) = value else {
                pen_down = false;
                continue;
            };
            let command = if pen_down { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1}", self.x(step), self.y(value));
            pen_down = true;
        }
        path
    }
}

impl Chart<'_> {
    /// The chart as an `<svg>` element.
    pub(crate) fn svg(&self) -> String {
        let mut svg = format!(
            "<svg class=\"chart {}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">\n",
            self.class,
            escape(self.title)
        );
        let frame = self.curves(&mut svg);
        self.tooltips(&frame, &mut svg);
        // Above the tooltips of the curve: the rings have their own.
        self.held_out(&frame, &mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    /// The chart's content without tooltips, in `WIDTH` by `HEIGHT` units from the origin.
    pub(crate) fn content(&self, svg: &mut String) {
        let frame = self.curves(svg);
        self.held_out(&frame, svg);
    }

    /// Stages, axes and the curves.
    fn curves(&self, svg: &mut String) -> Frame {
        let points = || self.points.iter().chain(self.smooth).chain(self.held_out);
        let ticks = self.scale.ticks(span(points().filter_map(|(_, value)| *value)));
        let frame = Frame::spanning(points().map(|(step, _)| *step), &ticks);
        self.stages(&frame, svg);
        axes(&frame, &ticks, svg);
        for (class, points) in [("raw", self.points), ("smooth", self.smooth)] {
            let path = frame.path(&thin(points, POINTS));
            if !path.is_empty() {
                let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
            }
        }
        self.last_value(&frame, svg);
        frame
    }

    /// A ring for each evaluation on held-out questions, joined by a dashed line.
    fn held_out(&self, frame: &Frame, svg: &mut String) {
        let points = thin(self.held_out, EVALUATIONS);
        let measured: Vec<Point> =
            points.into_iter().filter(|(_, value)| value.is_some()).collect();
        if measured.len() > 1 {
            let _ = writeln!(svg, "<path class=\"held-out\" d=\"{}\"/>", frame.path(&measured));
        }
        for (step, value) in measured {
            let Some(value) = value else { continue };
            let _ = writeln!(
                svg,
                "<circle class=\"held-out\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\">\
                 <title>held out, step {}: {}</title></circle>",
                frame.x(step),
                frame.y(value),
                step.round(),
                number(value)
            );
        }
    }

    /// Shades every second stage and labels each at the top.
    fn stages(&self, frame: &Frame, svg: &mut String) {
        for (index, mark) in self.marks.iter().enumerate() {
            let from = frame.x(mark.step.clamp(frame.x.0, frame.x.1));
            let next = self.marks.get(index + 1).map_or(frame.x.1, |next| next.step);
            let to = frame.x(next.clamp(frame.x.0, frame.x.1));
            if index % 2 == 1 {
                let _ = writeln!(
                    svg,
                    "<rect class=\"stage\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" \
                     height=\"{}\"/>",
                    to - from,
                    HEIGHT - TOP - BOTTOM
                );
            }
            if index > 0 {
                let bottom = HEIGHT - BOTTOM;
                let _ = writeln!(svg, "<path class=\"boundary\" d=\"M{from:.1} {TOP}V{bottom}\"/>");
            }
            let _ = writeln!(
                svg,
                "<text class=\"stage-label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                (from + to) / 2.0,
                TOP - 7.0,
                escape(&mark.label)
            );
        }
    }

    /// A dot at the curve's end, labeled with its value.
    fn last_value(&self, frame: &Frame, svg: &mut String) {
        let last = self.smooth.iter().rev().find_map(|&(step, value)| Some((step, value?)));
        let Some((step, value)) = last else { return };
        let (x, y) = (frame.x(step), frame.y(value));
        let _ = writeln!(svg, "<circle class=\"end\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
        let _ = writeln!(
            svg,
            "<text class=\"end-label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 8.0,
            y + 4.0,
            number(value)
        );
    }

    /// Invisible rectangles whose tooltips show step and value.
    fn tooltips(&self, frame: &Frame, svg: &mut String) {
        let points = thin(self.smooth, TOOLTIPS);
        let width = (WIDTH - LEFT - RIGHT) / points.len().max(1) as f64;
        for (step, value) in points {
            let Some(value) = value else { continue };
            let _ = writeln!(
                svg,
                "<rect class=\"hit\" x=\"{:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{}\">\
                 <title>step {}: {}</title></rect>",
                frame.x(step) - width / 2.0,
                HEIGHT - TOP - BOTTOM,
                step.round(),
                number(value)
            );
        }
    }
}

pub(crate) fn axes(frame: &Frame, ticks: &[f64], svg: &mut String) {
    for &tick in ticks {
        let y = frame.y(tick);
        let right = WIDTH - RIGHT;
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
        let _ = writeln!(
            svg,
            "<text class=\"tick y\" x=\"{}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            number(tick)
        );
    }
    for step in nice_ticks(frame.x.0, frame.x.1, 5) {
        if step < frame.x.0 || step > frame.x.1 || step.fract() != 0.0 {
            continue;
        }
        let _ = writeln!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{}\">{}</text>",
            frame.x(step),
            HEIGHT - BOTTOM + 18.0,
            number(step)
        );
    }
}

impl Scale {
    /// Ticks of the axis, including both ends.
    pub(crate) fn ticks(self, range: Option<(f64, f64)>) -> Vec<f64> {
        let (low, high) = range.unwrap_or((0.0, 1.0));
        match self {
            Self::Share => vec![0.0, 0.25, 0.5, 0.75, 1.0],
            Self::FromZero => nice_ticks(low.min(0.0), if high > 0.0 { high } else { 1.0 }, 4),
            Self::Free => nice_ticks(low, high, 4),
        }
    }
}

/// About `count` round intervals from at most `low` to at least `high`.
fn nice_ticks(low: f64, high: f64, count: u32) -> Vec<f64> {
    let spread = if high > low { high - low } else { low.abs().max(1.0) * 0.1 };
    let rough = spread / f64::from(count);
    let magnitude = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * magnitude)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * magnitude);
    let first = (low / step + 1e-9).floor() as i64;
    let last = ((high / step - 1e-9).ceil() as i64).max(first + 1);
    (first..=last).map(|index| index as f64 * step).collect()
}

/// Minimum and maximum; `None` without values.
pub(crate) fn span(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |span, value| match span {
        None => Some((value, value)),
        Some((low, high)) => Some((low.min(value), high.max(value))),
    })
}

/// Downsamples to at most `most` points by averaging equal bins.
pub(crate) fn thin(points: &[Point], most: usize) -> Vec<Point> {
    let stretch = points.len().div_ceil(most).max(1);
    if stretch == 1 {
        return points.to_vec();
    }
    points
        .chunks(stretch)
        .map(|chunk| {
            let step = mean(chunk.iter().map(|(step, _)| *step)).unwrap_or_default();
            (step, mean(chunk.iter().filter_map(|(_, value)| *value)))
        })
        .collect()
}

/// The centered moving average over `window` points.
pub(crate) fn smoothed(points: &[Point], window: usize) -> Vec<Point> {
    let reach = window / 2;
    (0..points.len())
        .map(|index| {
            let around =
                &points[index.saturating_sub(reach)..(index + reach + 1).min(points.len())];
            let value = points[index].1.and(mean(around.iter().filter_map(|(_, value)| *value)));
            (points[index].0, value)
        })
        .collect()
}

/// The mean; `None` without values.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// A number with about three significant digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.1e}");
    }
    let decimals = if size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else if size >= 0.1 {
        2
    } else {
        4
    };
    let text = format!("{value:.decimals$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_span_the_values() {
        assert_eq!(nice_ticks(0.0, 105.0, 4), [0.0, 50.0, 100.0, 150.0]);
        assert_eq!(nice_ticks(0.0, 4.0, 4), [0.0, 1.0, 2.0, 3.0, 4.0]);
        for (low, high) in [(0.0, 1e-9), (-3.0, 17.2), (3.0, 3.0), (1e9, 1e9), (0.1, 0.3)] {
            let ticks = nice_ticks(low, high, 4);
            assert!(ticks[0] <= low + 1e-9 && ticks[ticks.len() - 1] >= high - 1e-9, "{ticks:?}");
            assert!(ticks.len() <= 8, "{ticks:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.5, 0.123456, 12.345, 1234.5, 0.00123, 5e-7, 2e9, -0.25].map(number);
        assert_eq!(
            shown,
            ["0", "0.5", "0.12", "12.3", "1234", "0.0012", "5.0e-7", "2.0e9", "-0.25"]
        );
    }

    #[test]
    fn smoothing_is_a_moving_average_and_preserves_gaps() {
        let points = [(0.0, Some(1.0)), (1.0, Some(3.0)), (2.0, None), (3.0, Some(5.0))];
        assert_eq!(
            smoothed(&points, 3),
            [(0.0, Some(2.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(5.0))]
        );
    }

    #[test]
    fn a_long_curve_is_downsampled_by_means() {
        let points: Vec<_> = (0..1000).map(|step| (f64::from(step), Some(1.0))).collect();
        let thinned = thin(&points, 400);
        assert_eq!(thinned.len(), 334);
        assert_eq!(thinned[0], (1.0, Some(1.0)));
    }

    #[test]
    fn a_gap_in_the_values_is_a_gap_in_the_curve() {
        let points = [(0.0, Some(0.0)), (1.0, None), (2.0, Some(1.0))];
        let frame = Frame { x: (0.0, 2.0), y: (0.0, 1.0) };
        let path = frame.path(&points);
        assert_eq!(path.matches('M').count(), 2);
        assert_eq!(path.matches('L').count(), 0);
    }

    #[test]
    fn evaluations_are_rings_on_the_axes_of_the_curve() {
        let chart = Chart {
            title: "t",
            class: "x",
            scale: Scale::FromZero,
            points: &[(1.0, Some(0.5)), (8.0, Some(0.5))],
            smooth: &[],
            held_out: &[(0.0, Some(4.0)), (4.0, None), (8.0, Some(2.0))],
            marks: &[],
        };
        let svg = chart.svg();
        assert_eq!(svg.matches("<circle class=\"held-out\"").count(), 2, "{svg}");
        assert!(svg.contains("<title>held out, step 8: 2</title>"), "{svg}");
        let (left, top) = (LEFT, TOP);
        assert!(svg.contains(&format!("cx=\"{left:.1}\" cy=\"{top:.1}\"")), "{svg}");
    }

    #[test]
    fn a_chart_without_points_is_valid() {
        let chart = Chart {
            title: "a < b",
            class: "x",
            scale: Scale::Free,
            points: &[],
            smooth: &[],
            held_out: &[],
            marks: &[],
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}

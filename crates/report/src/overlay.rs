//! The curves of several runs in one chart, as inline SVG.

use std::fmt::Write as _;

use crate::chart::{BOTTOM, Frame, HEIGHT, LEFT, POINTS, Point, RIGHT, Scale, TOP, WIDTH};
use crate::chart::{axes, mean, number, span, thin};
use crate::html::escape;

/// Colors in the style sheet; further runs reuse them with dashed lines.
const COLORS: usize = 8;
/// Bins with a tooltip.
const BINS: usize = 60;

/// One run's curve.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve<'a> {
    /// Index of the run, which selects its color.
    pub(crate) run: usize,
    pub(crate) name: &'a str,
    /// Values in step order.
    pub(crate) points: Vec<Point>,
}

/// Several curves with common axes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overlay<'a> {
    /// Accessible label.
    pub(crate) title: &'a str,
    pub(crate) scale: Scale,
    pub(crate) curves: &'a [Curve<'a>],
}

/// The CSS classes with a run's color.
pub(crate) fn class(run: usize) -> String {
    let dashed = if run >= COLORS { " dashed" } else { "" };
    format!("run-{}{dashed}", run % COLORS)
}

impl Overlay<'_> {
    /// The chart as an `<svg>` element.
    pub(crate) fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let ticks = self.scale.ticks(span(points().filter_map(|(_, value)| *value)));
        let frame = Frame::spanning(points().map(|(step, _)| *step), &ticks);
        let mut svg = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">\n",
            escape(self.title)
        );
        axes(&frame, &ticks, &mut svg);
        for curve in self.curves {
            let class = class(curve.run);
            let path = frame.path(&thin(&curve.points, POINTS));
            let _ = writeln!(svg, "<path class=\"smooth {class}\" d=\"{path}\"/>");
            let last = curve.points.iter().rev().find_map(|&(step, value)| Some((step, value?)));
            if let Some((step, value)) = last {
                let _ = writeln!(
                    svg,
                    "<circle class=\"end {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
                    frame.x(step),
                    frame.y(value)
                );
            }
        }
        self.tooltips(&frame, &mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    /// Invisible rectangles whose tooltips show each run's mean over a bin.
    fn tooltips(&self, frame: &Frame, svg: &mut String) {
        let (first, last) = frame.x;
        let width = (last - first) / BINS as f64;
        for bin in 0..BINS {
            let from = first + width * bin as f64;
            let to = if bin + 1 == BINS { f64::INFINITY } else { from + width };
            let means = self.curves.iter().filter_map(|curve| {
                let within = curve.points.iter().filter(|(step, _)| (from..to).contains(step));
                let value = mean(within.filter_map(|(_, value)| *value))?;
                Some(format!("{}: {}", escape(curve.name), number(value)))
            });
            let means: Vec<String> = means.collect();
            if means.is_empty() {
                continue;
            }
            let _ = writeln!(
                svg,
                "<rect class=\"hit\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\">\
                 <title>from step {}\n{}</title></rect>",
                frame.x(from),
                (WIDTH - LEFT - RIGHT) / BINS as f64,
                HEIGHT - TOP - BOTTOM,
                number(from.ceil()),
                means.join("\n")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_a_curve_in_its_own_color() {
        let curve = |run, name, high| Curve {
            run,
            name,
            points: vec![(1.0, Some(0.0)), (2.0, Some(high))],
        };
        let curves = [curve(0, "a<b", 1.0), curve(1, "c", 4.0), curve(9, "d", 2.0)];
        let svg = Overlay { title: "t", scale: Scale::FromZero, curves: &curves }.svg();
        for class in ["smooth run-0\"", "smooth run-1\"", "smooth run-1 dashed\""] {
            assert!(svg.contains(class), "{class} in {svg}");
        }
        assert!(svg.contains("a&lt;b: 0\nc: 0\nd: 0"), "{svg}");
        assert!(svg.contains(">4</text>"), "the axis spans all curves: {svg}");
    }

    #[test]
    fn an_overlay_without_curves_is_valid() {
        let svg = Overlay { title: "t", scale: Scale::Free, curves: &[] }.svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}

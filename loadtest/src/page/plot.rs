//! Lines over time, or over ever rarer cases, as SVG that stands in a page.

use std::fmt::Write;

use super::escaped;
use crate::result::Mark;

pub struct Plot {
    pub title: String,
    pub unit: String,
    pub across: Scale,
    pub up: Scale,
    pub lines: Vec<Line>,
    pub marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero, in even steps.
    Even,
    Seconds,
    /// By powers of ten.
    Powers,
    /// The number of nines of a share: 1 is 90 %, 2 is 99 %.
    Nines,
}

pub struct Line {
    name: String,
    colour: usize,
    filled: bool,
    points: Vec<(f64, f64)>,
}

impl Line {
    pub fn new(name: &str, colour: usize, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), colour: colour % COLOURS, filled: false, points }
    }

    pub fn filled(self) -> Self {
        Self { filled: true, ..self }
    }
}

/// As many as the page's style has.
const COLOURS: usize = 6;
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 22.0;
/// More points than a line has pixels are not seen.
const POINTS_MAX: usize = 520;

/// One direction: where its ticks are, and where a value lies between 0.0 and 1.0.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    fn of(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().fold(0.0, f64::max);
        match scale {
            Scale::Even | Scale::Seconds => {
                let step = step(most);
                let high = if scale == Scale::Seconds {
                    most.max(1.0)
                } else {
                    (most / step).ceil().max(1.0) * step
                };
                let ticks =
                    (0..=12).map(|index| f64::from(index) * step).take_while(|tick| *tick <= high * 1.001);
                Self { scale, low: 0.0, high, ticks: ticks.collect() }
            }
            Scale::Nines => {
                let high = most.ceil().clamp(1.0, 6.0);
                // The last two labels are long, and side by side they would cover each other.
                let ticks = (0..=high as i32).filter(|tick| *tick != 5 || high < 6.0).map(f64::from);
                Self { scale, low: 0.0, high, ticks: ticks.collect() }
            }
            Scale::Powers => {
                let least = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                let least = if least.is_finite() { least } else { 1.0 };
                let (low, high) = (least.log10().floor(), most.max(least).log10().ceil());
                let high = high.max(low + 1.0);
                let ticks = (low as i32..=high as i32).map(|power| 10_f64.powi(power)).collect();
                Self { scale, low, high, ticks }
            }
        }
    }

    fn at(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Powers => value.max(1e-9).log10(),
            Scale::Even | Scale::Seconds | Scale::Nines => value,
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn label(&self, tick: f64) -> String {
        match self.scale {
            Scale::Seconds if self.high > 300.0 => {
                format!("{:.0}:{:02.0}", (tick / 60.0).floor(), tick % 60.0)
            }
            Scale::Seconds => format!("{tick} s"),
            Scale::Nines if tick < 0.5 => "all".to_owned(),
            Scale::Nines => format!("{} %", 100.0 - 10_f64.powf(2.0 - tick)),
            Scale::Powers if tick >= 60_000.0 => format!("{:.0} s", tick / 1000.0),
            Scale::Powers if tick >= 1000.0 => format!("{} s", tick / 1000.0),
            Scale::Powers => format!("{tick} ms"),
            Scale::Even if tick >= 10_000.0 => format!("{}k", tick / 1000.0),
            Scale::Even => format!("{}", (tick * 1000.0).round() / 1000.0),
        }
    }
}

/// A round number, of which about five make the whole.
fn step(most: f64) -> f64 {
    let rough = (most / 5.0).max(1e-6);
    let power = 10_f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|times| times * power >= rough * 0.999);
    times.unwrap_or(10.0) * power
}

impl Plot {
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let across = Axis::of(self.across, points().map(|point| point.0));
        let up = Axis::of(self.up, points().map(|point| point.1));
        let mut svg = String::new();
        let _ = write!(svg, "<figure><figcaption><b>{}</b>", escaped(&self.title));
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            let (colour, name) = (line.colour, escaped(&line.name));
            let _ = write!(svg, "<span><i style='background:var(--c{colour})'></i>{name}</span>");
        }
        let _ = write!(
            svg,
            "<span>{}</span></figcaption><svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{}'>",
            escaped(&self.unit),
            escaped(&self.title)
        );
        grid(&mut svg, &across, &up);
        for mark in &self.marks {
            draw_mark(&mut svg, mark, &across);
        }
        for line in &self.lines {
            draw_line(&mut svg, line, &across, &up);
        }
        svg.push_str("</svg></figure>");
        svg
    }
}

fn x(at: f64) -> f64 {
    LEFT + at * (WIDTH - LEFT - RIGHT)
}

fn y(at: f64) -> f64 {
    TOP + (1.0 - at) * (HEIGHT - TOP - BOTTOM)
}

fn grid(svg: &mut String, across: &Axis, up: &Axis) {
    let (left, right, bottom) = (x(0.0), x(1.0), y(0.0));
    for tick in &up.ticks {
        let at = y(up.at(*tick));
        let _ = write!(svg, "<path class=grid d='M{left} {at:.1}H{right}'/>");
        let _ = write!(
            svg,
            "<text x='{}' y='{:.1}' text-anchor=end>{}</text>",
            left - 6.0,
            at + 4.0,
            up.label(*tick)
        );
    }
    for tick in &across.ticks {
        let at = across.at(*tick);
        let anchor = if at > 0.96 { "end" } else { "middle" };
        let (at, below) = (x(at), bottom + 16.0);
        let _ =
            write!(svg, "<text x='{at:.1}' y='{below}' text-anchor={anchor}>{}</text>", across.label(*tick));
    }
}

fn draw_mark(svg: &mut String, mark: &Mark, across: &Axis) {
    let (from, to) = (x(across.at(mark.from_s)), x(across.at(mark.to_s)));
    let (top, bottom, what) = (y(1.0), y(0.0), escaped(&mark.what));
    let width = (to - from).max(0.0);
    let height = bottom - top;
    let _ = write!(
        svg,
        "<g><title>{what}</title><rect class=mark x='{from:.1}' y='{top}' width='{width:.1}' height='{height}'/>\
         <path class=moment d='M{from:.1} {top}V{bottom}'/></g>"
    );
    if width > 40.0 {
        let _ = write!(svg, "<text x='{:.1}' y='{}'>{what}</text>", from + 5.0, top + 13.0);
    }
}

fn draw_line(svg: &mut String, line: &Line, across: &Axis, up: &Axis) {
    let every = line.points.len().div_ceil(POINTS_MAX).max(1);
    let last = line.points.len().saturating_sub(1);
    let points =
        line.points.iter().enumerate().filter(|(index, _)| index.is_multiple_of(every) || *index == last);
    let mut path = String::new();
    for (index, (_, (right, high))) in points.enumerate() {
        let letter = if index == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{letter}{:.1} {:.1}", x(across.at(*right)), y(up.at(*high)));
    }
    if path.is_empty() {
        return;
    }
    let colour = line.colour;
    if line.filled
        && let (Some(first), Some(last)) = (line.points.first(), line.points.last())
    {
        let (from, to, bottom) = (x(across.at(first.0)), x(across.at(last.0)), y(0.0));
        let _ = write!(
            svg,
            "<path d='{path}L{to:.1} {bottom}L{from:.1} {bottom}Z' fill='var(--c{colour})' opacity='.14'/>"
        );
    }
    let _ = write!(
        svg,
        "<path d='{path}' fill=none stroke='var(--c{colour})' stroke-width=1.8 stroke-linejoin=round vector-effect=non-scaling-stroke />"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_few() {
        for most in [0.03, 0.9, 7.0, 12.0, 2_000.0, 99_999.0] {
            let ticks = Axis::of(Scale::Even, [most].into_iter()).ticks;
            assert!((4..=8).contains(&ticks.len()), "{most}: {ticks:?}");
        }
    }

    #[test]
    fn nothing_is_a_plot_too() {
        let plot = Plot {
            title: "a".to_owned(),
            unit: "b".to_owned(),
            across: Scale::Seconds,
            up: Scale::Powers,
            lines: vec![Line::new("c", 9, Vec::new()).filled()],
            marks: Vec::new(),
        };
        assert!(plot.svg().ends_with("</svg></figure>") && !plot.svg().contains("NaN"));
    }
}

//! Draws the results as SVG, dark on light, with a text description for screen readers.

use std::fmt::Display;

/// Evidence over a day.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Name of the curve.
    pub name: String,
    /// Minutes and values.
    pub points: Vec<(f64, f64)>,
}

pub type Curves = Vec<Curve>;

/// A detector as a point: false alarms and delay.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub name: String,
    /// False alarms a week.
    pub false_a_week: f64,
    /// Median delay, hours.
    pub hours: f64,
    /// True for Bellwether's.
    pub own: bool,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// Margins for the axes: left, right, top, bottom.
const MARGIN: [f64; 4] = [64.0, 20.0, 44.0, 48.0];

const INK: &str = "#24292f";
const GREY: &str = "#8c959f";
const BLUE: &str = "#0969da";
const RED: &str = "#cf222e";

/// A picture under construction.
struct Sheet {
    text: String,
    x: Axis,
    y: Axis,
}

/// An axis, linear or logarithmic.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

// === impl Axis ===

impl Axis {
    /// Returns the position of a value, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let of = |value: f64| if self.log { value.max(1e-12).ln() } else { value };
        ((of(value) - of(self.low)) / (of(self.high) - of(self.low))).clamp(0.0, 1.0)
    }
}

// === impl Sheet ===

impl Sheet {
    fn new(title: &str, description: &str, x: Axis, y: Axis) -> Self {
        let mut sheet = Self { text: String::new(), x, y };
        sheet.put(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="13" fill="{INK}">"#
        ));
        sheet.put(format_args!("<title>{}</title><desc>{}</desc>", escaped(title), escaped(description)));
        sheet.put(format_args!(r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>"##));
        sheet.label(
            (MARGIN[0], 24.0),
            "start",
            INK,
            format_args!(r#"<tspan font-weight="600">{}</tspan>"#, escaped(title)),
        );
        sheet
    }

    fn put(&mut self, what: std::fmt::Arguments<'_>) {
        self.text.push_str(&what.to_string());
        self.text.push('\n');
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let (wide, high) = (WIDTH - MARGIN[0] - MARGIN[1], HEIGHT - MARGIN[2] - MARGIN[3]);
        (MARGIN[0] + self.x.place(x) * wide, HEIGHT - MARGIN[3] - self.y.place(y) * high)
    }

    fn label(&mut self, (x, y): (f64, f64), anchor: &str, colour: &str, text: impl Display) {
        self.put(format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{colour}">{text}</text>"#));
    }

    fn axes(&mut self, x_name: &str, y_name: &str, xs: &[(f64, &str)], ys: &[(f64, &str)]) {
        for (value, text) in xs {
            let (x, y) = self.at(*value, self.y.low);
            self.put(format_args!(r##"<path d="M{x:.1} {y:.1}V{:.1}" stroke="#eaeef2"/>"##, MARGIN[2]));
            self.label((x, y + 18.0), "middle", GREY, text);
        }
        for (value, text) in ys {
            let (x, y) = self.at(self.x.low, *value);
            self.put(format_args!(r##"<path d="M{x:.1} {y:.1}H{:.1}" stroke="#eaeef2"/>"##, WIDTH - MARGIN[1]));
            self.label((x - 8.0, y + 4.0), "end", GREY, text);
        }
        self.label((WIDTH - MARGIN[1], HEIGHT - 10.0), "end", INK, escaped(x_name));
        self.label((MARGIN[0] - 52.0, MARGIN[2] - 6.0), "start", INK, escaped(y_name));
    }

    fn line(&mut self, points: &[(f64, f64)], colour: &str, width: f64, opacity: f64) {
        let mut path = String::new();
        for (place, (x, y)) in points.iter().enumerate() {
            let (x, y) = self.at(*x, *y);
            path.push_str(&format!("{}{x:.1} {y:.1}", if place == 0 { "M" } else { "L" }));
        }
        self.put(format_args!(
            r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}"/>"#
        ));
    }

    fn done(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Ticks at hours of a day, for an axis in minutes.
const HOURS: [(f64, &str); 5] = [(0.0, "0 h"), (360.0, "6 h"), (720.0, "12 h"), (1080.0, "18 h"), (1440.0, "24 h")];

/// Keeps every fifth point and the last: enough for a day.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let last = points.len().saturating_sub(1);
    points.iter().enumerate().filter(|(place, _)| place % 5 == 0 || *place == last).map(|(_, point)| *point).collect()
}

/// Draws the evidence of releases with and without a change, over their first day.
pub fn evidence(curves: &Curves) -> String {
    let (low, high) = (-8.0, 30.0);
    let description = "Grey: releases without a change. Blue: releases with a success rate 5 points lower. The red line is \
                       the alert threshold.";
    let axis = |low, high| Axis { low, high, log: false };
    let mut sheet =
        Sheet::new("Evidence of a release, inspected every minute", description, axis(0.0, 1440.0), axis(low, high));
    let ticks = [(-4.6, "1/100"), (0.0, "1"), (4.6, "100"), (11.5, "100,000"), (23.0, "10¹⁰")];
    sheet.axes("time since the release", "E (likelihood ratio)", &HOURS, &ticks);
    for (name, colour) in [("no change", GREY), ("-5 points", BLUE)] {
        for curve in curves.iter().filter(|curve| curve.name == name) {
            let points: Vec<(f64, f64)> =
                thinned(&curve.points).into_iter().map(|(x, y)| (x, y.clamp(low, high))).collect();
            sheet.line(&points, colour, 1.0, 0.55);
        }
    }
    let threshold = 100_f64.ln();
    sheet.line(&[(0.0, threshold), (1440.0, threshold)], RED, 1.5, 1.0);
    let (_, y) = sheet.at(0.0, threshold);
    sheet.label(
        (WIDTH - MARGIN[1] - 4.0, y - 6.0),
        "end",
        RED,
        "alarm: at most 1 release in 100 ever reaches this by chance",
    );
    let (x, y) = sheet.at(900.0, 27.0);
    sheet.label((x, y), "start", BLUE, "5 points worse");
    let (x, y) = sheet.at(900.0, -5.5);
    sheet.label((x, y), "start", GREY, "no change");
    sheet.done()
}

/// Draws false alarms and delay of detectors and peers, at −5 points.
pub fn trade(marks: &[Mark]) -> String {
    let description = "Each point is a detector: false alarms a week to the right, hours until a drop of 5 points is detected \
                       upwards.";
    let (x, y) = (Axis { low: 0.003, high: 100.0, log: true }, Axis { low: 0.1, high: 200.0, log: true });
    let mut sheet =
        Sheet::new("False alarms against delay: success drops by 5 points, 27,000 runs a week", description, x, y);
    let xs = [(0.01, "0.01"), (0.1, "0.1"), (1.0, "1"), (10.0, "10"), (100.0, "100")];
    let ys = [(0.1, "0.1"), (1.0, "1"), (10.0, "10"), (100.0, "100")];
    sheet.axes("false alarms per series and week (none observed: left edge)", "hours to detection", &xs, &ys);
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for mark in marks {
        let (x, y) = sheet.at(mark.false_a_week.max(0.003), mark.hours);
        let colour = if mark.own { BLUE } else { INK };
        sheet.put(format_args!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="5" fill="{colour}"/>"#));
        let left = x > WIDTH * 0.6;
        let mut height = y + 4.0;
        while taken.iter().any(|(a, b)| (a - x).abs() < 230.0 && (b - height).abs() < 14.0) {
            height += 14.0;
        }
        taken.push((x, height));
        let (dx, anchor) = if left { (-9.0, "end") } else { (9.0, "start") };
        sheet.label((x + dx, height), anchor, colour, escaped(&mark.name));
    }
    sheet.done()
}

/// Draws a day of harder traffic: the pooled rate moves, the evidence does not.
pub fn mix(curves: &Curves) -> String {
    let description = "The canary gets twice the share of hard tasks, and no task got worse. Red: its pooled error rate minus \
                       that of the baseline. Blue: the evidence by task.";
    let axis = |low, high| Axis { low, high, log: false };
    let title = "Harder traffic, same quality: the pooled rate and the evidence by task";
    let mut sheet = Sheet::new(title, description, axis(0.0, 1440.0), axis(-10.0, 10.0));
    let ticks = [(-5.0, "-5"), (0.0, "0"), (5.0, "5")];
    sheet.axes("time since the release", "points; ln E", &HOURS, &ticks);
    for (name, colour, text, place) in [
        ("mix pooled", RED, "pooled error rate: canary minus baseline, points", 7.0),
        ("mix evidence", BLUE, "evidence by task, ln E; alarm at 4.6", -8.0),
    ] {
        for curve in curves.iter().filter(|curve| curve.name == name) {
            sheet.line(&thinned(&curve.points), colour, 2.0, 1.0);
        }
        let (x, y) = sheet.at(500.0, place);
        sheet.label((x, y), "start", colour, text);
    }
    sheet.line(&[(0.0, 100_f64.ln()), (1440.0, 100_f64.ln())], GREY, 1.0, 1.0);
    sheet.done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_contain_their_data_and_stay_within_bounds() {
        let curve = |name: &str, y: f64| Curve { name: name.to_owned(), points: vec![(0.0, 0.0), (1440.0, y)] };
        let curves = vec![curve("no change", -3.0), curve("-5 points", 1e9), curve("mix pooled", 3.0)];
        let marks = [Mark { name: "a < b".to_owned(), false_a_week: 0.0, hours: 4.0, own: true }];
        for picture in [evidence(&curves), trade(&marks), mix(&curves)] {
            assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
            assert!(picture.contains("<title>") && picture.contains("<desc>"));
            assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        }
        assert!(trade(&marks).contains("a &lt; b"));
        assert_eq!(evidence(&curves).matches("stroke-opacity=\"0.55\"").count(), 2);
    }
}

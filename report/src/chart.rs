//! Charts as SVG inside the page: a task by day as a line, eval cases by week as bars.

use bellwether_base::Week;
use plotters::prelude::*;

use crate::change::Figure;
use crate::tasks::Day;

/// Size of a chart in units of its own; the page scales it to the width of the reader's screen.
const SIZE: (u32, u32) = (340, 130);

/// Fewest days with a value for a chart.
const LEAST_DAYS: usize = 2;

const LINE: RGBColor = RGBColor(31, 95, 168);
const INK: RGBColor = RGBColor(90, 98, 110);
const RULE: RGBColor = RGBColor(214, 219, 226);

/// Draws the success rate by day with its intervals.
pub(crate) fn success(days: &[Day], task: &str) -> String {
    let figures: Vec<Option<Figure>> = days.iter().map(|day| day.success).collect();
    // Whole percentages would repeat on an axis of few points.
    let digits = usize::from(range(&figures, Some(1.0)).is_some_and(|(low, high)| high - low < 0.06));
    let label = |value: &f64| format!("{:.digits$} %", 100.0 * value);
    draw(&figures, &format!("Task success of {task} by day"), Some(1.0), &label)
}

/// Draws the cost per completed task by day with its intervals; nothing if no day has one.
pub(crate) fn cost(days: &[Day], task: &str) -> String {
    let figures: Vec<Option<Figure>> = days.iter().map(|day| day.cost).collect();
    let label = |value: &f64| bellwether_stats::figure::number(*value);
    draw(&figures, &format!("Cost per completed task of {task} by day"), None, &label)
}

/// Draws figures by day, if at least two days have one: a line where days follow one another, a dot for each, and a band for the intervals. `greatest` is
/// the greatest possible value.
fn draw(figures: &[Option<Figure>], title: &str, greatest: Option<f64>, label: &dyn Fn(&f64) -> String) -> String {
    if figures.iter().flatten().count() < LEAST_DAYS {
        return String::new();
    }
    let Some((low, high)) = range(figures, greatest) else { return String::new() };
    let mut text = String::new();
    let drawn = paint(&mut text, figures, (low, high), label);
    // A picture that cannot be drawn is left out; its figures are in the table.
    if drawn.is_err() { String::new() } else { titled(&text, title) }
}

/// Draws the number of eval cases at the end of each week as bars; nothing if there are none.
pub(crate) fn growth(weeks: &[(Week, i64)]) -> String {
    let most = weeks.iter().map(|(_, cases)| *cases).max().unwrap_or(0);
    if most == 0 {
        return String::new();
    }
    let mut text = String::new();
    let drawn = bars(&mut text, weeks, most);
    if drawn.is_err() { String::new() } else { titled(&text, "Eval cases from reviews by week") }
}

fn titled(picture: &str, title: &str) -> String {
    picture.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{}\" ", escaped(title)), 1)
}

fn bars(text: &mut String, weeks: &[(Week, i64)], most: i64) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    // Room for the number above the highest bar.
    let height = most + (most + 3) / 4;
    let count = i32::try_from(weeks.len()).unwrap_or(1);
    let mut chart = ChartBuilder::on(&area).margin(6).x_label_area_size(18).build_cartesian_2d(0..count, 0..height)?;
    chart.configure_mesh().disable_mesh().axis_style(RULE).x_labels(0).y_labels(0).draw()?;
    let small = ("sans-serif", 11).into_font().color(&INK);
    for (place, (week, cases)) in (0..).zip(weeks) {
        let mut bar = Rectangle::new([(place, 0), (place + 1, *cases)], LINE.mix(0.6).filled());
        bar.set_margin(0, 0, 4, 4);
        chart.draw_series([bar])?;
        let (x, top) = chart.backend_coord(&(place, *cases));
        area.draw(&Text::new(cases.to_string(), (x + 6, top - 13), small.clone()))?;
        let name = week.to_string();
        let name = name.split_once('-').map_or(name.as_str(), |(_, name)| name);
        area.draw(&Text::new(name.to_owned(), (x + 6, i32::try_from(SIZE.1)? - 18), small.clone()))?;
    }
    area.present()?;
    Ok(())
}

fn paint(
    text: &mut String,
    figures: &[Option<Figure>],
    (low, high): (f64, f64),
    label: &dyn Fn(&f64) -> String,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    let days = i32::try_from(figures.len()).unwrap_or(14);
    let mut chart = ChartBuilder::on(&area)
        .margin(6)
        .x_label_area_size(18)
        .y_label_area_size(44)
        .build_cartesian_2d(-0.5..f64::from(days) - 0.5, low..high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RULE)
        .axis_style(RULE)
        .y_labels(4)
        .x_labels(0)
        .label_style(("sans-serif", 11).into_font().color(&INK))
        .y_label_formatter(label)
        .draw()?;
    // The week begins in the middle.
    let monday = f64::from(days) / 2.0 - 0.5;
    chart.draw_series([PathElement::new([(monday, low), (monday, high)], INK.stroke_width(1))])?;
    for run in runs(figures) {
        let upper = run.iter().map(|(x, figure)| (*x, figure.high.min(high)));
        let lower = run.iter().rev().map(|(x, figure)| (*x, figure.low.max(low)));
        chart.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), LINE.mix(0.15))])?;
        chart.draw_series(LineSeries::new(run.iter().map(|(x, figure)| (*x, figure.value)), LINE.stroke_width(2)))?;
        chart.draw_series(run.iter().map(|(x, figure)| Circle::new((*x, figure.value), 2, LINE.filled())))?;
    }
    for (name, x) in [("week before", -0.3), ("this week", monday + 0.2)] {
        let place = (chart.backend_coord(&(x, low)).0, i32::try_from(SIZE.1).unwrap_or_default() - 16);
        area.draw(&Text::new(name, place, ("sans-serif", 11).into_font().color(&INK)))?;
    }
    area.present()?;
    Ok(())
}

/// Returns the days that follow one another, with their places.
fn runs(figures: &[Option<Figure>]) -> Vec<Vec<(f64, Figure)>> {
    let mut runs: Vec<Vec<(f64, Figure)>> = vec![Vec::new()];
    for (place, figure) in figures.iter().enumerate() {
        match (figure, runs.last_mut()) {
            (Some(figure), Some(run)) => run.push((f64::from(u32::try_from(place).unwrap_or(u32::MAX)), *figure)),
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// Returns the range of the vertical axis: all values with most of their intervals, and some room; none without a value.
fn range(figures: &[Option<Figure>], greatest: Option<f64>) -> Option<(f64, f64)> {
    let all = || figures.iter().flatten();
    let least = all().map(|figure| figure.value).min_by(f64::total_cmp)?;
    let most = all().map(|figure| figure.value).max_by(f64::total_cmp)?;
    let spread = (most - least).max(0.05 * most.abs()).max(1e-9);
    // One day with two runs must not flatten all the others.
    let (floor, ceiling) = (least - spread, most + spread);
    let low = all().map(|figure| figure.low.max(floor)).fold(least, f64::min).max(0.0);
    let high = all().map(|figure| figure.high.min(ceiling)).fold(most, f64::max);
    let high = greatest.map_or(high, |greatest| high.min(greatest));
    let room = 0.08 * (high - low).max(spread);
    Some(((low - room).max(0.0), greatest.map_or(high + room, |greatest| (high + room).min(greatest + 0.02))))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(value: f64) -> Day {
        Day { success: Some(Figure { value, low: value - 0.05, high: value + 0.05 }), cost: None }
    }

    #[test]
    fn gaps_break_the_line() {
        let days = [day(0.9), day(0.8), Day::default(), day(0.7), Day::default(), Day::default(), day(0.9)];
        let figures: Vec<_> = days.iter().map(|day| day.success).collect();
        let lengths: Vec<usize> = runs(&figures).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1]);
        let picture = success(&days, "a<b");
        assert_eq!(picture.matches("<circle").count(), 4);
        assert_eq!(picture.matches("<polygon").count(), 3, "a band for each part of the line");
        assert!(picture.contains("aria-label=\"Task success of a&lt;b by day\""), "{picture}");
        assert_eq!(cost(&days, "t"), "");
        assert_eq!((success(&[], "t"), success(&[day(0.5)], "t")), (String::new(), String::new()));
    }

    #[test]
    fn each_week_has_a_bar_with_its_number() {
        let week: Week = "2026-W48".parse().expect("a week");
        let picture = growth(&[(week.before(), 7), (week, 12)]);
        for part in ["W47", "W48", ">\n7\n<", ">\n12\n<", "aria-label=\"Eval cases from reviews by week\""] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
        assert_eq!(growth(&[(week, 0)]), "");
    }

    #[test]
    fn a_day_with_a_wide_interval_does_not_flatten_the_others() {
        let mut days: Vec<_> = [0.90, 0.91, 0.92].map(|value| day(value).success).to_vec();
        days[2] = Some(Figure { value: 0.92, low: 0.0, high: 1.0 });
        let (low, high) = range(&days, Some(1.0)).expect("a range");
        assert!(low > 0.8 && high > 0.92 && high <= 1.02, "{low} to {high}");
        assert!(range(&[None], None).is_none());
        let (low, high) = range(&[Some(Figure { value: 0.0, low: 0.0, high: 0.0 })], None).expect("a range");
        assert!(low < high);
    }
}

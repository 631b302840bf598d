//! Plots as SVG, drawn by hand: a bar for each ratio, with its spread and its goal; a curve for each thing that grows.

use std::fmt::Write as _;

use crate::report::{Row, digits};

const BAR: f64 = 16.0;
const GAP: f64 = 8.0;
const LABELS: f64 = 400.0;
const WIDTH: f64 = 960.0;
/// Of the plot with curves.
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const COLOURS: [&str; 6] = ["#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568"];

/// Curves where something grows, else bars.
pub(crate) fn of(rows: &[Row]) -> String {
    if rows.iter().any(|row| row.at.is_some()) {
        curves(rows)
    } else {
        bars(rows)
    }
}

struct Bar {
    label: String,
    colour: &'static str,
    length: f64,
    spread: [f64; 2],
    goal: Option<f64>,
}

impl Bar {
    /// A ratio as it is; what has a goal and is none, as a part of the goal. Other rows are left out.
    fn of(row: &Row) -> Option<Self> {
        let (result, _) = row.result()?;
        let (unit, of) = match (row.ratio, row.goal) {
            (Some(_), _) => (1.0, row.ratio_to.clone().unwrap_or_default()),
            (None, Some(goal)) => (goal, "goal".to_owned()),
            (None, None) => return None,
        };
        Some(Self {
            label: format!("{} · {} / {of}", row.case, row.proxy),
            colour: if row.proxy.starts_with("servicechain") {
                COLOURS[0]
            } else {
                "#a0aec0"
            },
            length: result / unit,
            spread: row.spread.map(|end| end / unit),
            goal: row.goal.map(|goal| goal / unit),
        })
    }
}

fn bars(rows: &[Row]) -> String {
    let bars: Vec<Bar> = rows.iter().filter_map(Bar::of).collect();
    let most = bars
        .iter()
        .map(|bar| bar.length.max(bar.spread[1]))
        .fold(1.0, f64::max);
    let scale = (WIDTH - LABELS - 80.0) / most;
    let mut y = 30.0;
    let mut body = String::new();
    for bar in bars {
        let (right, middle) = ((bar.length * scale).max(0.0), y + BAR / 2.0);
        let _ = write!(
            body,
            r##"<text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>
<rect x="{LABELS}" y="{y:.1}" width="{right:.1}" height="{BAR}" fill="{}"/>
<line x1="{:.1}" y1="{middle:.1}" x2="{:.1}" y2="{middle:.1}" stroke="#1a202c"/>
<text x="{:.1}" y="{:.1}">{:.2}</text>
"##,
            LABELS - 8.0,
            y + 12.5,
            bar.label,
            bar.colour,
            LABELS + bar.spread[0] * scale,
            LABELS + bar.spread[1] * scale,
            LABELS + right.max(bar.spread[1] * scale) + 6.0,
            y + 12.5,
            bar.length,
        );
        if let Some(goal) = bar.goal {
            let x = LABELS + goal * scale;
            let _ = writeln!(
                body,
                r##"<line x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{:.1}" stroke="#c53030" stroke-width="2"/>"##,
                y - 2.0,
                y + BAR + 2.0
            );
        }
        y += BAR + GAP;
    }
    let title =
        "Ratios, and figures as parts of their goals; the line is the spread of the rounds, red is the goal.";
    image(y + 10.0, title, &body)
}

/// Each case's cost over that of its least number, numbers on a logarithmic axis.
fn curves(rows: &[Row]) -> String {
    let mut cases: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for row in rows {
        let (Some(at), Some((cost, _))) = (row.at, row.result()) else {
            continue;
        };
        let point = (
            f64::from(u32::try_from(at).unwrap_or(u32::MAX)).max(1.0).log10(),
            cost,
        );
        match cases.iter_mut().find(|(case, _)| *case == row.case) {
            Some((_, points)) => points.push(point),
            None => cases.push((&row.case, vec![point])),
        }
    }
    for (_, points) in &mut cases {
        let first = points.first().map_or(1.0, |(_, cost)| *cost);
        for (_, cost) in points {
            *cost /= first;
        }
    }
    let all = || cases.iter().flat_map(|(_, points)| points);
    let right = all().map(|(at, _)| *at).fold(1.0, f64::max);
    let top = all().map(|(_, cost)| *cost).fold(2.0, f64::max);
    let x = |at: f64| LEFT + at / right * (RIGHT - LEFT);
    let y = |cost: f64| TOP + HEIGHT - cost / top * HEIGHT;
    let mut body = String::new();
    let mut at = 0.0;
    while at <= right {
        let _ = writeln!(
            body,
            r##"<line x1="{0:.1}" y1="{TOP}" x2="{0:.1}" y2="{1:.1}" stroke="#e2e8f0"/><text x="{0:.1}" y="{2:.1}" text-anchor="middle">{3:.0}</text>"##,
            x(at),
            TOP + HEIGHT,
            TOP + HEIGHT + 18.0,
            10_f64.powf(at)
        );
        at += 1.0;
    }
    for part in 0..=4 {
        let cost = top * f64::from(part) / 4.0;
        let _ = writeln!(
            body,
            r##"<line x1="{LEFT}" y1="{0:.1}" x2="{RIGHT}" y2="{0:.1}" stroke="#e2e8f0"/><text x="{1:.1}" y="{2:.1}" text-anchor="end">{3}</text>"##,
            y(cost),
            LEFT - 6.0,
            y(cost) + 4.0,
            digits(cost)
        );
    }
    for (number, (case, points)) in cases.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let line: Vec<String> = points
            .iter()
            .map(|(at, cost)| format!("{:.1},{:.1}", x(*at), y(*cost)))
            .collect();
        let _ = writeln!(
            body,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            line.join(" ")
        );
        let label = TOP + 20.0 * f64::from(u32::try_from(number).unwrap_or_default());
        let _ = writeln!(
            body,
            r#"<rect x="{:.0}" y="{label:.0}" width="12" height="12" fill="{colour}"/><text x="{:.0}" y="{:.0}">{case}</text>"#,
            RIGHT + 20.0,
            RIGHT + 38.0,
            label + 11.0
        );
    }
    image(
        TOP + HEIGHT + 30.0,
        "Cost of a request over its cost with the least number.",
        &body,
    )
}

fn image(height: f64, title: &str, body: &str) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="10" y="18">{title}</text>
{body}</svg>
"#
    )
}

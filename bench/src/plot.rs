//! Plots as SVG, drawn by hand: a bar for each ratio, with its spread and its goal.

use std::fmt::Write as _;

use crate::report::Row;

const BAR: f64 = 16.0;
const GAP: f64 = 8.0;
const LABELS: f64 = 340.0;
const WIDTH: f64 = 900.0;

/// Ratios as bars from 0, a tick at each row's goal. Rows without a ratio are left out.
pub(crate) fn ratios(rows: &[Row]) -> String {
    let rows: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((row, row.ratio?))).collect();
    let most = rows
        .iter()
        .map(|(row, ratio)| ratio.max(row.spread[1]))
        .fold(1.0, f64::max);
    let scale = (WIDTH - LABELS - 80.0) / most;
    let mut y = 30.0;
    let mut body = String::new();
    for (row, ratio) in rows {
        let (right, middle) = (ratio * scale, y + BAR / 2.0);
        let colour = if row.proxy.starts_with("servicechain") {
            "#2b6cb0"
        } else {
            "#a0aec0"
        };
        let _ = write!(
            body,
            r##"<text x="{:.0}" y="{:.1}" text-anchor="end">{} · {} / {}</text>
<rect x="{LABELS}" y="{y:.1}" width="{right:.1}" height="{BAR}" fill="{colour}"/>
<line x1="{:.1}" y1="{middle:.1}" x2="{:.1}" y2="{middle:.1}" stroke="#1a202c"/>
<text x="{:.1}" y="{:.1}">{ratio:.2}</text>
"##,
            LABELS - 8.0,
            y + 12.5,
            row.case,
            row.proxy,
            row.ratio_to.as_deref().unwrap_or_default(),
            LABELS + row.spread[0] * scale,
            LABELS + row.spread[1] * scale,
            LABELS + right.max(row.spread[1] * scale) + 6.0,
            y + 12.5,
        );
        if let Some(goal) = row.goal {
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
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{:.0}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="10" y="18">Processor time a request as a ratio; the line is the spread of the rounds, red is the goal.</text>
{body}</svg>
"#,
        y + 10.0
    )
}

//! What a run leaves behind: the JSON that programs read, the table and the plot that people read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::plot;
use crate::rounds::{Middle, Series};

/// One contender in one case, against one other.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) bench: &'static str,
    pub(crate) case: String,
    pub(crate) proxy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_micros_per_request: Option<f64>,
    /// What is no processor time of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) figure: Option<f64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) unit: &'static str,
    /// How many there were of what the case is called after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to: Option<String>,
    /// Of the ratio, else of the figure, else of the time: the tenth and the ninetieth percentile of the rounds.
    pub(crate) spread: [f64; 2],
    pub(crate) rounds: usize,
    pub(crate) errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_micros: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_micros: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<f64>,
    /// What lies beyond the goal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) further: Option<f64>,
}

impl Row {
    pub(crate) fn new(bench: &'static str, case: impl Into<String>, proxy: impl Into<String>) -> Self {
        Self {
            bench,
            case: case.into(),
            proxy: proxy.into(),
            ..Self::default()
        }
    }

    /// Microseconds of processor time for each request.
    pub(crate) fn micros(mut self, series: &Series) -> Self {
        self.cpu_micros_per_request = self.middle(series).map(|middle| middle.median);
        self
    }

    /// As [`Row::micros`], for what is something else.
    pub(crate) fn figure(mut self, unit: &'static str, series: &Series) -> Self {
        self.figure = self.middle(series).map(|middle| middle.median);
        self.unit = unit;
        self
    }

    /// To another of the same rounds.
    pub(crate) fn over(mut self, to: impl Into<String>, ratios: &Series) -> Self {
        self.ratio = self.middle(ratios).map(|middle| middle.median);
        self.ratio_to = Some(to.into());
        self
    }

    /// Of the ratio, else of the figure, else of the time.
    pub(crate) fn aim(mut self, goal: f64, further: Option<f64>) -> Self {
        (self.goal, self.further) = (Some(goal), further);
        self
    }

    pub(crate) fn at(mut self, at: u64) -> Self {
        self.at = Some(at);
        self
    }

    pub(crate) fn errors(mut self, errors: u64) -> Self {
        self.errors = errors;
        self
    }

    /// What the goal is about, and what of.
    pub(crate) fn result(&self) -> Option<(f64, &str)> {
        if let Some(ratio) = self.ratio {
            return Some((ratio, ""));
        }
        let figure = self.figure.map(|figure| (figure, self.unit));
        figure.or(self.cpu_micros_per_request.map(|micros| (micros, "us")))
    }

    fn middle(&mut self, series: &Series) -> Option<Middle> {
        let middle = series.middle()?;
        self.spread = [middle.low, middle.high];
        self.rounds = series.rounds();
        Some(middle)
    }

    /// What went wrong now and then says nothing about what it costs.
    fn without_figures_of_errors(mut self) -> Self {
        if self.errors > 0 {
            (self.cpu_micros_per_request, self.figure, self.ratio) = (None, None, None);
            (self.requests_per_second, self.p50_micros, self.p99_micros) = (None, None, None);
            self.spread = [0.0, 0.0];
        }
        self
    }

    fn verdict(&self) -> String {
        let goal = self
            .goal
            .map(|goal| format!(" (goal {})", digits(goal)))
            .unwrap_or_default();
        let result = match self.result() {
            _ if self.errors > 0 => format!("no figure: {} errors", self.errors),
            Some((ratio, "")) => {
                format!("{} of {}", digits(ratio), self.ratio_to.as_deref().unwrap_or(""))
            }
            Some((figure, unit)) => format!("{} {unit}", digits(figure)),
            None => "no figure".to_owned(),
        };
        let at = self.at.map(|at| format!(" {at}")).unwrap_or_default();
        format!("{} {}{at} {result}{goal}", self.bench, self.case)
    }
}

/// What a section found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) rows: Vec<Row>,
    /// What was left out and why; what the table does not say.
    pub(crate) notes: Vec<String>,
    /// A page of its own beside the section's: its text, without a title.
    pub(crate) profile: Option<String>,
}

/// Everything about one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) date: String,
    pub(crate) versions: BTreeMap<String, String>,
    /// Processes that wanted the processor when it began and when it ended: on a busy machine only ratios count.
    pub(crate) load: [String; 2],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// With the rows of `findings`, those with errors without their figures.
    pub(crate) fn take(&mut self, findings: Findings) {
        let rows = findings.rows.into_iter();
        self.rows = rows.map(Row::without_figures_of_errors).collect();
        self.notes = findings.notes;
    }

    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        write(file, serde_json::to_string_pretty(self)? + "\n")
    }

    /// `<section>.json`, `<section>.md`, `<section>.svg`, and `<section>-profile.md` where there is one.
    pub(crate) fn write_docs(
        &self,
        folder: &Path,
        section: &str,
        about: &str,
        profile: Option<&str>,
    ) -> Result<()> {
        fs::create_dir_all(folder)?;
        self.write_json(&folder.join(format!("{section}.json")))?;
        write(
            &folder.join(format!("{section}.md")),
            self.page(section, about, profile.is_some()),
        )?;
        write(&folder.join(format!("{section}.svg")), plot::of(&self.rows))?;
        if let Some(profile) = profile {
            let page = format!(
                "# Where the time of {section} goes\n\nWritten by `cargo xtask bench {section}` on {}, on {}.\n\n{profile}",
                self.date, self.machine
            );
            write(&folder.join(format!("{section}-profile.md")), page)?;
        }
        Ok(())
    }

    fn page(&self, section: &str, about: &str, has_profile: bool) -> String {
        let mut page = format!(
            "# {section}\n\nWritten by `cargo xtask bench {section}` on {}.\n\n{about}\n\n- machine: {}; load average {} at the beginning, {} at the end\n",
            self.date, self.machine, self.load[0], self.load[1]
        );
        let versions: Vec<String> = self
            .versions
            .iter()
            .map(|(program, version)| format!("{program} {version}"))
            .collect();
        let _ = writeln!(page, "- {}", versions.join(", "));
        for note in &self.notes {
            let _ = writeln!(page, "- {note}");
        }
        if has_profile {
            let _ = writeln!(page, "- [where the time goes]({section}-profile.md)");
        }
        let _ = writeln!(page, "\n![plot]({section}.svg)\n");
        page.push_str(&self.table());
        page
    }

    /// Columns that say nothing are left out.
    fn table(&self) -> String {
        type Cell = fn(&Row) -> String;
        let columns: [(&str, bool, Cell); 14] = [
            ("case", false, |row| row.case.clone()),
            ("contender", false, |row| row.proxy.clone()),
            ("how many", true, |row| {
                row.at.map(|at| at.to_string()).unwrap_or_default()
            }),
            ("µs a request", true, |row| shown(row.cpu_micros_per_request)),
            ("figure", true, |row| {
                row.figure
                    .map(|figure| format!("{} {}", digits(figure), row.unit))
                    .unwrap_or_default()
            }),
            ("ratio", true, |row| shown(row.ratio)),
            ("of", false, |row| row.ratio_to.clone().unwrap_or_default()),
            ("spread", false, |row| match row.spread {
                [low, high] if low == 0.0 && high == 0.0 => String::new(),
                [low, high] => format!("{} to {}", digits(low), digits(high)),
            }),
            ("goal", true, |row| shown(row.goal)),
            ("further", true, |row| shown(row.further)),
            ("requests/s", true, |row| whole(row.requests_per_second)),
            ("p50 µs", true, |row| shown(row.p50_micros)),
            ("p99 µs", true, |row| shown(row.p99_micros)),
            ("errors", true, |row| row.errors.to_string()),
        ];
        let columns: Vec<(&str, bool, Vec<String>)> = columns
            .into_iter()
            .map(|(name, is_number, cell)| (name, is_number, self.rows.iter().map(cell).collect::<Vec<_>>()))
            .filter(|(_, _, cells)| cells.iter().any(|cell| !cell.is_empty()))
            .collect();
        let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
        let mut table = line(columns.iter().map(|(name, ..)| *name).collect());
        table += &line(
            columns
                .iter()
                .map(|(_, is_number, _)| if *is_number { "---:" } else { "---" })
                .collect(),
        );
        for row in 0..self.rows.len() {
            table += &line(columns.iter().map(|(.., cells)| cells[row].as_str()).collect());
        }
        table
    }

    /// One line a row, for who watches.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |row: &Row| {
            let at = row.at.map(|at| at.to_string()).unwrap_or_default();
            let micros = row.cpu_micros_per_request;
            let micros = micros.map(|micros| format!("{} us", digits(micros)));
            let figure = row
                .figure
                .map(|figure| format!("{} {}", digits(figure), row.unit));
            let ratio = row.ratio.map(|ratio| {
                let to = row.ratio_to.as_deref().unwrap_or("");
                format!(
                    "{ratio:.3} of {to} ({:.2} to {:.2})",
                    row.spread[0], row.spread[1]
                )
            });
            let errors = (row.errors > 0).then(|| format!("{} ERRORS", row.errors));
            let what: Vec<String> = [micros, figure, ratio, errors].into_iter().flatten().collect();
            format!("{:<30} {:<20} {at:>6}  {}", row.case, row.proxy, what.join("  "))
        };
        self.rows.iter().map(line).collect()
    }

    /// The results with a goal, one a line; where none has one, those that compare.
    pub(crate) fn verdicts(&self) -> Vec<String> {
        let chosen = |choose: fn(&Row) -> bool| -> Vec<String> {
            self.rows
                .iter()
                .filter(|row| choose(row))
                .map(Row::verdict)
                .collect()
        };
        let verdicts = chosen(|row| row.goal.is_some());
        if verdicts.is_empty() {
            chosen(|row| row.ratio_to.is_some())
        } else {
            verdicts
        }
    }
}

fn write(file: &Path, text: String) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Enough to compare with a goal.
pub(crate) fn digits(number: f64) -> String {
    let digits = match number.abs() {
        small if small < 0.1 => 3,
        middle if middle < 100.0 => 2,
        _ => 0,
    };
    format!("{number:.digits$}")
}

fn shown(figure: Option<f64>) -> String {
    figure.map(digits).unwrap_or_default()
}

fn whole(figure: Option<f64>) -> String {
    figure.map(|figure| format!("{figure:.0}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(figures: &[f64]) -> Series {
        let mut series = Series::default();
        for figure in figures {
            series.push(*figure);
        }
        series
    }

    fn report(rows: Vec<Row>) -> Report {
        let mut report = Report {
            machine: String::new(),
            date: String::new(),
            versions: BTreeMap::new(),
            load: [String::new(), String::new()],
            notes: Vec::new(),
            rows: Vec::new(),
        };
        report.take(Findings {
            rows,
            ..Findings::default()
        });
        report
    }

    #[test]
    fn a_row_with_errors_is_no_figure() {
        let row = Row::new("gateway", "rs256_repeating", "servicechain");
        let row = row
            .micros(&series(&[17.0]))
            .over("other", &series(&[0.9]))
            .aim(1.0, None);
        let report = report(vec![row.clone(), row.errors(3)]);
        assert_eq!(
            report.verdicts(),
            [
                "gateway rs256_repeating 0.90 of other (goal 1.00)",
                "gateway rs256_repeating no figure: 3 errors (goal 1.00)"
            ]
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rows"][0]["cpuMicrosPerRequest"], 17.0);
        assert!(json["rows"][1].get("cpuMicrosPerRequest").is_none());
    }

    #[test]
    fn a_goal_is_of_the_ratio_else_of_the_figure_else_of_the_time() {
        let time = Row::new("verify", "cached", "servicechain")
            .micros(&series(&[0.052]))
            .aim(0.1, Some(0.04));
        let size = Row::new("memory", "gateway_idle", "servicechain")
            .figure("MB", &series(&[12.0]))
            .aim(15.0, None);
        assert_eq!(
            report(vec![time, size]).verdicts(),
            [
                "verify cached 0.052 us (goal 0.10)",
                "memory gateway_idle 12.00 MB (goal 15.00)"
            ]
        );
    }

    #[test]
    fn columns_without_a_cell_are_left_out() {
        let row = Row::new("memory", "idle", "servicechain").figure("MB", &series(&[12.0]));
        let table = report(vec![row]).table();
        assert_eq!(
            table,
            "| case | contender | figure | spread | errors |\n| --- | --- | ---: | --- | ---: |\n\
             | idle | servicechain | 12.00 MB | 12.00 to 12.00 | 0 |\n"
        );
    }
}

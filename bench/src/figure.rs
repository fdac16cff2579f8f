//! Figures: medians of interleaved rounds, and how they are shown.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{Options, cpu::Cpu};

/// One round of one side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// What was done.
    pub(crate) operations: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// The CPU time that it took.
    pub(crate) cpu: Cpu,
    /// How long each operation took, where that was looked at.
    pub(crate) latencies: Vec<Duration>,
}

impl Sample {
    fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    fn per_thousand(&self, seconds: f64) -> f64 {
        seconds * 1_000.0 / self.operations as f64
    }
}

/// A benchmark's result.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// The benchmark.
    name: &'static str,
    /// The median of our rounds.
    value: f64,
    /// Of what.
    unit: &'static str,
    /// The median of the ceiling's rounds, in the same unit.
    ceiling: f64,
    /// What the ceiling is.
    ceiling_name: &'static str,
    /// Value by ceiling.
    ratio: f64,
    rounds: usize,
    value_min: f64,
    value_max: f64,
    ceiling_min: f64,
    ceiling_max: f64,
    cpu_s_per_1000_server: f64,
    cpu_s_per_1000_database: f64,
    /// Of the program that makes the load, which takes it from the same cores.
    cpu_s_per_1000_load: f64,
    /// Of the server under the ceiling, where that is one.
    cpu_s_per_1000_server_of_ceiling: f64,
    /// Of the database under the ceiling, where that is one.
    cpu_s_per_1000_database_of_ceiling: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms_p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms_p99: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

/// What else was measured.
#[derive(Debug, Serialize)]
struct Detail {
    name: String,
    value: f64,
    unit: &'static str,
}

impl Figure {
    /// Takes the rounds: ours, ceiling, ours, ceiling, …, with one of each before that counts for nothing.
    pub(crate) async fn measure(
        name: &'static str,
        unit: &'static str,
        ceiling_name: &'static str,
        options: &Options,
        mut ours: impl AsyncFnMut() -> Sample,
        mut ceiling: impl AsyncFnMut() -> Sample,
    ) -> Self {
        println!("{name}: ours against {ceiling_name}");
        ours().await;
        ceiling().await;
        let (mut of_ours, mut of_ceiling) = (Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            of_ours.push(ours().await);
            of_ceiling.push(ceiling().await);
            let rates = of_ours
                .last()
                .map(Sample::rate)
                .zip(of_ceiling.last().map(Sample::rate));
            if let Some((ours, ceiling)) = rates {
                println!(
                    "  round {round}: {} and {} {unit}",
                    grouped(ours),
                    grouped(ceiling)
                );
            }
        }
        Self::of(name, unit, ceiling_name, &of_ours, &of_ceiling)
    }

    /// The figure of rounds that were taken.
    pub(crate) fn of(
        name: &'static str,
        unit: &'static str,
        ceiling_name: &'static str,
        of_ours: &[Sample],
        of_ceiling: &[Sample],
    ) -> Self {
        let rates = |samples: &[Sample]| samples.iter().map(Sample::rate).collect::<Vec<_>>();
        let (ours_rates, ceiling_rates) = (rates(of_ours), rates(of_ceiling));
        let cpu = |samples: &[Sample], part: fn(&Cpu) -> f64| {
            median(
                &samples
                    .iter()
                    .map(|sample| sample.per_thousand(part(&sample.cpu)))
                    .collect::<Vec<_>>(),
            )
        };
        let mut latencies: Vec<Duration> = of_ours
            .iter()
            .flat_map(|sample| sample.latencies.iter().copied())
            .collect();
        latencies.sort_unstable();
        let (value, ceiling) = (median(&ours_rates), median(&ceiling_rates));
        Self {
            name,
            value,
            unit,
            ceiling,
            ceiling_name,
            ratio: value / ceiling,
            rounds: of_ours.len(),
            value_min: least(&ours_rates),
            value_max: most(&ours_rates),
            ceiling_min: least(&ceiling_rates),
            ceiling_max: most(&ceiling_rates),
            cpu_s_per_1000_server: cpu(of_ours, |cpu| cpu.server),
            cpu_s_per_1000_database: cpu(of_ours, |cpu| cpu.database),
            cpu_s_per_1000_load: cpu(of_ours, |cpu| cpu.load),
            cpu_s_per_1000_server_of_ceiling: cpu(of_ceiling, |cpu| cpu.server),
            cpu_s_per_1000_database_of_ceiling: cpu(of_ceiling, |cpu| cpu.database),
            latency_ms_p50: percentile_ms(&latencies, 50),
            latency_ms_p99: percentile_ms(&latencies, 99),
            details: Vec::new(),
        }
    }

    /// The median of our rounds.
    pub(crate) fn value(&self) -> f64 {
        self.value
    }

    /// With something else that was measured.
    #[must_use]
    pub(crate) fn with(mut self, name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let name = name.into();
        self.details.push(Detail { name, value, unit });
        self
    }

    /// All of them in one table, in the form that docs/performance.md has.
    pub(crate) fn print_table(figures: &[Self]) {
        println!(
            "| | ours | ceiling | ratio | CPU seconds per 1,000: server | database | what the ceiling is |"
        );
        println!("|---|---:|---:|---:|---:|---:|---|");
        for figure in figures {
            println!(
                "| `{}` | {} | {} | **{:.2}** | {:.3} | {:.3} | {}; {:.3} of the server, {:.3} of the database |",
                figure.name,
                spread(figure.value, figure.value_min, figure.value_max),
                spread(figure.ceiling, figure.ceiling_min, figure.ceiling_max),
                figure.ratio,
                figure.cpu_s_per_1000_server,
                figure.cpu_s_per_1000_database,
                figure.ceiling_name,
                figure.cpu_s_per_1000_server_of_ceiling,
                figure.cpu_s_per_1000_database_of_ceiling,
            );
        }
        println!("Median (least to most), in what each benchmark counts; see docs/performance.md.");
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "  ours:    {} {}",
            spread(self.value, self.value_min, self.value_max),
            self.unit
        )?;
        writeln!(
            formatter,
            "  ceiling: {} {} ({})",
            spread(self.ceiling, self.ceiling_min, self.ceiling_max),
            self.unit,
            self.ceiling_name
        )?;
        write!(
            formatter,
            "  ratio {:.3}; CPU seconds per 1,000: server {:.3}, database {:.3}, load {:.3}; the ceiling's server {:.3}, database {:.3}",
            self.ratio,
            self.cpu_s_per_1000_server,
            self.cpu_s_per_1000_database,
            self.cpu_s_per_1000_load,
            self.cpu_s_per_1000_server_of_ceiling,
            self.cpu_s_per_1000_database_of_ceiling,
        )?;
        if let (Some(p50), Some(p99)) = (self.latency_ms_p50, self.latency_ms_p99) {
            write!(formatter, "; latency p50 {p50:.1} ms, p99 {p99:.1} ms")?;
        }
        for Detail { name, value, unit } in &self.details {
            write!(formatter, "\n  {name}: {value:.3} {unit}")?;
        }
        Ok(())
    }
}

fn spread(median: f64, least: f64, most: f64) -> String {
    format!(
        "{} ({} to {})",
        grouped(median),
        grouped(least),
        grouped(most)
    )
}

/// `12,345`.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn sorted(numbers: &[f64]) -> Vec<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(numbers: &[f64]) -> f64 {
    let sorted = sorted(numbers);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

fn least(numbers: &[f64]) -> f64 {
    sorted(numbers)[0]
}

fn most(numbers: &[f64]) -> f64 {
    sorted(numbers)[numbers.len() - 1]
}

/// Of durations that are sorted.
pub(crate) fn percentile_ms(durations: &[Duration], percent: usize) -> Option<f64> {
    let place = durations.len() * percent / 100;
    durations
        .get(place)
        .map(|duration| duration.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_groups() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert_eq!(grouped(1_234_567.2), "1,234,567");
        assert_eq!(grouped(999.4), "999");
    }
}

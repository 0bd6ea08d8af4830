//! Converts the registry's metrics to OTLP, with the same names, labels and values.
//!
//! Counters become cumulative monotonic sums, gauges stay gauges, and histograms keep the bounds of
//! their buckets. A counter that has fallen, because a reload removed its route and added it again,
//! starts anew with a new start time.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

/// Remembers the start time of each cumulative series.
pub struct Converter {
    /// All times here are nanoseconds since 1970.
    started: u64,
    last: u64,
    series: HashMap<Series, Counting>,
}

/// A metric's name and labels.
type Series = (String, Vec<(String, String)>);

struct Counting {
    since: u64,
    /// The value at the last export; for a histogram, its count.
    value: f64,
    /// When the series was last seen.
    seen: u64,
}

impl Converter {
    /// `started` is the time at which the registry began to count.
    pub fn new(started: SystemTime) -> Self {
        let started = nanos(started);
        Converter { started, last: started, series: HashMap::new() }
    }

    /// Converts `families` as they are at `now`.
    pub fn convert(
        &mut self,
        families: Vec<MetricFamily>,
        resource: &ResourceAttributesWithSchema,
        now: SystemTime,
    ) -> ExportMetricsServiceRequest {
        let now = nanos(now);
        let metrics = families.iter().map(|family| self.metric(family, now)).collect();
        self.series.retain(|_, counting| counting.seen == now);
        self.last = now;
        let scope = InstrumentationScope {
            name: "portcullis".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_metrics =
            vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }];
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(Resource {
                    attributes: resource.attributes.0.clone(),
                    ..Resource::default()
                }),
                scope_metrics,
                schema_url: resource.schema_url.clone().unwrap_or_default(),
            }],
        }
    }

    fn metric(&mut self, family: &MetricFamily, now: u64) -> Metric {
        let (name, metrics) = (family.name(), family.get_metric());
        let cumulative = AggregationTemporality::Cumulative.into();
        let data = match family.get_field_type() {
            MetricType::COUNTER => {
                let points = metrics.iter().map(|metric| {
                    let value = metric.get_counter().get_value();
                    number(metric, value, self.since(name, metric, value, now), now)
                });
                metric::Data::Sum(Sum {
                    data_points: points.collect(),
                    aggregation_temporality: cumulative,
                    is_monotonic: true,
                })
            }
            MetricType::HISTOGRAM => {
                let points = metrics.iter().map(|metric| {
                    let count = metric.get_histogram().get_sample_count();
                    let since = self.since(name, metric, count as f64, now);
                    histogram(metric, since, now)
                });
                metric::Data::Histogram(Histogram {
                    data_points: points.collect(),
                    aggregation_temporality: cumulative,
                })
            }
            MetricType::GAUGE => gauge(metrics, |m| m.get_gauge().get_value(), now),
            // The gateway has no metrics of these types.
            MetricType::UNTYPED | MetricType::SUMMARY => gauge(&[], |_| 0.0, now),
        };
        Metric {
            name: name.to_owned(),
            description: family.help().to_owned(),
            unit: unit(name).to_owned(),
            data: Some(data),
            ..Metric::default()
        }
    }

    /// The start time of a series whose value is `value` now.
    fn since(&mut self, name: &str, metric: &proto::Metric, value: f64, now: u64) -> u64 {
        let (started, last) = (self.started, self.last);
        let labels = metric.get_label().iter();
        let labels = labels.map(|label| (label.name().to_owned(), label.value().to_owned()));
        let series = (name.to_owned(), labels.collect());
        let counting = self.series.entry(series).or_insert(Counting {
            // A series that is new since the last export began to count after it. In the first
            // export, every series began at the start.
            since: if last == started { started } else { last },
            value,
            seen: now,
        });
        if value < counting.value {
            counting.since = last;
        }
        counting.value = value;
        counting.seen = now;
        counting.since
    }
}

fn number(metric: &proto::Metric, value: f64, since: u64, now: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(metric),
        start_time_unix_nano: since,
        time_unix_nano: now,
        // Never an integer: the registry does not say which values are integers.
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn gauge(metrics: &[proto::Metric], of: fn(&proto::Metric) -> f64, now: u64) -> metric::Data {
    let points = metrics.iter().map(|metric| number(metric, of(metric), 0, now));
    metric::Data::Gauge(Gauge { data_points: points.collect() })
}

/// A Prometheus bucket also counts the values of the buckets below it. OTLP's do not, and there is
/// one more for the values above all bounds.
fn histogram(metric: &proto::Metric, since: u64, now: u64) -> HistogramDataPoint {
    let histogram = metric.get_histogram();
    let buckets = histogram.get_bucket().iter().filter(|b| b.upper_bound().is_finite());
    let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in buckets {
        bounds.push(bucket.upper_bound());
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    // Taken from the buckets if they add up to more, because values may be observed while they are
    // read.
    let count = histogram.get_sample_count().max(below);
    counts.push(count - below);
    HistogramDataPoint {
        attributes: attributes(metric),
        start_time_unix_nano: since,
        time_unix_nano: now,
        count,
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

fn attributes(metric: &proto::Metric) -> Vec<KeyValue> {
    let attribute = |label: &LabelPair| KeyValue {
        key: label.name().to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(label.value().to_owned())) }),
        ..KeyValue::default()
    };
    metric.get_label().iter().map(attribute).collect()
}

/// The unit's name in UCUM.
fn unit(name: &str) -> &'static str {
    match name.trim_end_matches("_total") {
        name if name.ends_with("_seconds") => "s",
        name if name.ends_with("_bytes") => "By",
        _ => "",
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn metrics(converter: &mut Converter, registry: &Registry, now: u64) -> Vec<Metric> {
        let resource = ResourceAttributesWithSchema::default();
        let request = converter.convert(registry.gather(), &resource, at(now));
        let mut resources = request.resource_metrics;
        resources.remove(0).scope_metrics.remove(0).metrics
    }

    fn sums(converter: &mut Converter, registry: &Registry, now: u64) -> Vec<(u64, f64)> {
        let all = metrics(converter, registry, now);
        let points = all.into_iter().flat_map(|metric| match metric.data {
            Some(metric::Data::Sum(sum)) => {
                assert!(sum.is_monotonic);
                assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
                sum.data_points
            }
            other => panic!("{other:?}"),
        });
        let point = |point: NumberDataPoint| match point.value {
            Some(number_data_point::Value::AsDouble(value)) => {
                assert_eq!(point.time_unix_nano, now * 1_000_000_000);
                (point.start_time_unix_nano / 1_000_000_000, value)
            }
            other => panic!("{other:?}"),
        };
        points.map(point).collect()
    }

    fn counters(registry: &Registry) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new("calls_total", "Calls"), &["route"]);
        let counters = counters.expect("counters");
        registry.register(Box::new(counters.clone())).expect("registered");
        counters
    }

    #[test]
    fn a_counter_is_cumulative_since_the_start() {
        let registry = Registry::new();
        let counters = counters(&registry);
        let mut converter = Converter::new(at(100));
        counters.with_label_values(&["a"]).inc_by(3);
        assert_eq!(sums(&mut converter, &registry, 160), [(100, 3.0)]);
        counters.with_label_values(&["a"]).inc_by(2);
        assert_eq!(sums(&mut converter, &registry, 220), [(100, 5.0)]);
    }

    #[test]
    fn a_counter_that_falls_or_appears_begins_when_it_was_last_known_not_to_have() {
        let registry = Registry::new();
        let counters = counters(&registry);
        let mut converter = Converter::new(at(100));
        counters.with_label_values(&["a"]).inc_by(3);
        sums(&mut converter, &registry, 160);
        counters.reset();
        counters.with_label_values(&["a"]).inc_by(1);
        counters.with_label_values(&["b"]).inc_by(7);
        assert_eq!(sums(&mut converter, &registry, 220), [(160, 1.0), (160, 7.0)]);
        assert_eq!(sums(&mut converter, &registry, 280), [(160, 1.0), (160, 7.0)]);
    }

    #[test]
    fn series_that_are_gone_are_forgotten() {
        let registry = Registry::new();
        let counters = counters(&registry);
        let mut converter = Converter::new(at(100));
        counters.with_label_values(&["a"]).inc();
        sums(&mut converter, &registry, 160);
        counters.reset();
        counters.with_label_values(&["b"]).inc();
        sums(&mut converter, &registry, 220);
        assert_eq!(converter.series.len(), 1);
    }

    #[test]
    fn a_histogram_keeps_its_bounds_and_counts_each_bucket_by_itself() {
        let registry = Registry::new();
        let opts = HistogramOpts::new("wait_seconds", "Wait").buckets(vec![0.1, 1.0, 10.0]);
        let histogram = HistogramVec::new(opts, &["route"]).expect("a histogram");
        registry.register(Box::new(histogram.clone())).expect("registered");
        for value in [0.05, 0.1, 0.5, 5.0, 50.0, 60.0] {
            histogram.with_label_values(&["a"]).observe(value);
        }
        let all = metrics(&mut Converter::new(at(100)), &registry, 160);
        assert_eq!((all[0].name.as_str(), all[0].unit.as_str()), ("wait_seconds", "s"));
        let Some(metric::Data::Histogram(histogram)) = &all[0].data else { panic!("{all:?}") };
        let point = &histogram.data_points[0];
        assert_eq!(point.explicit_bounds, [0.1, 1.0, 10.0]);
        assert_eq!(point.bucket_counts, [2, 1, 1, 2]);
        assert_eq!(point.count, 6);
        assert!((point.sum.expect("a sum") - 115.65).abs() < 1e-9);
        assert_eq!(point.attributes[0].key, "route");
    }

    #[test]
    fn a_gauge_may_go_down() {
        let registry = Registry::new();
        let gauge = IntGauge::new("slots", "Slots").expect("a gauge");
        registry.register(Box::new(gauge.clone())).expect("registered");
        gauge.set(-2);
        let all = metrics(&mut Converter::new(at(100)), &registry, 160);
        let Some(metric::Data::Gauge(gauge)) = &all[0].data else { panic!("{all:?}") };
        let value = gauge.data_points[0].value;
        assert_eq!(value, Some(number_data_point::Value::AsDouble(-2.0)));
    }
}

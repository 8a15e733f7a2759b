//! The settings that every sink has.

use async_trait::async_trait;
use deltaforge_core::Fault;
use deltaforge_core::config::{Fields, FindingClass, Report, RetryPolicy, is_name};
use deltaforge_core::sink::{Sink, SinkContext, SinkPlan};
use deltaforge_core::source::{Names, SourceInfo};
use deltaforge_encode::EnvelopePlan;
use deltaforge_encode::template::Template;

/// `id`, `required`, `retry`, `envelope`, `encoding`.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) id: String,
    pub(crate) required: bool,
    retry: RetryPolicy,
    /// `retry.max_attempts` as written.
    max_attempts: Option<u32>,
    pub(crate) envelope: EnvelopePlan,
}

impl Common {
    /// Reads the common keys; `beside` is `required` as written beside `type`.
    pub(crate) fn parse(fields: &mut Fields<'_>, names: &Names<'_>, beside: Option<bool>) -> Common {
        let id = match fields.text("id") {
            Some(id) if !is_name(&id) => {
                let message =
                    "expected 1 to 128 letters, digits, `.`, `_` or `-`, the first a letter or digit";
                fields.form("id", message, None);
                id
            }
            Some(id) => id,
            None => names.default_id.to_owned(),
        };
        let within = fields.bool_if_set("required");
        if let (Some(within), Some(beside)) = (within, beside)
            && within != beside
        {
            let message = format!("`required: {within}` here, `required: {beside}` beside `type`");
            fields.error("required", FindingClass::Conflict, message, Some("write it once".into()));
        }
        let required = within.or(beside).unwrap_or(true);
        let default = if required { RetryPolicy::REQUIRED_SINK } else { RetryPolicy::OPTIONAL_SINK };
        let retry = RetryPolicy::parse(fields, default);
        let attempts = fields.node("retry").and_then(|retry| retry.get("max_attempts"));
        let max_attempts = attempts.filter(|node| !node.is_null()).map(|_| retry.max_attempts);
        let envelope = EnvelopePlan::parse(fields);
        // `update` is the only way so far, so the word needs no place to be kept.
        fields.choice("key_change", &["update"], &["split"], "update");
        fields.planned(&["filter"]);
        Common { id, required, retry, max_attempts, envelope }
    }
}

impl Common {
    /// How failed deliveries are tried again: without end where the checkpoint waits, unless the document says otherwise.
    pub(crate) fn retry(&self, waited_for: bool) -> RetryPolicy {
        let default = if waited_for { RetryPolicy::REQUIRED_SINK } else { RetryPolicy::OPTIONAL_SINK };
        RetryPolicy { max_attempts: self.max_attempts.unwrap_or(default.max_attempts), ..self.retry }
    }
}

/// A parsed sink, as a connector writes it: what its common settings say is answered by [`Planned`], the same for every one.
#[async_trait]
pub(crate) trait Plan: Send + Sync {
    fn common(&self) -> &Common;

    /// As [`SinkPlan::exactly_once`].
    fn exactly_once(&self) -> bool {
        false
    }

    /// As [`SinkPlan::stores_ends_alone`].
    fn stores_ends_alone(&self) -> bool {
        true
    }

    /// As [`SinkPlan::check`].
    async fn check(&self) -> Report;

    /// As [`SinkPlan::open`].
    async fn open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, Fault>;
}

/// A connector's plan as the engine takes it.
pub(crate) struct Planned<P>(pub(crate) P);

#[async_trait]
impl<P: Plan> SinkPlan for Planned<P> {
    fn id(&self) -> &str {
        &self.0.common().id
    }

    fn required(&self) -> bool {
        self.0.common().required
    }

    fn exactly_once(&self) -> bool {
        self.0.exactly_once()
    }

    fn stores_ends_alone(&self) -> bool {
        self.0.stores_ends_alone()
    }

    fn encoding(&self) -> Option<String> {
        Some(self.0.common().envelope.encoding())
    }

    fn retry(&self, waited_for: bool) -> RetryPolicy {
        self.0.common().retry(waited_for)
    }

    async fn check(&self) -> Report {
        self.0.check().await
    }

    async fn open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, Fault> {
        self.0.open(context).await
    }
}

/// Reads a required template.
pub(crate) fn required_template(fields: &mut Fields<'_>, key: &'static str) -> Option<Template> {
    let text = fields.required_text(key)?;
    parse_template(fields, key, &text)
}

/// Reads a template, if written.
pub(crate) fn template(fields: &mut Fields<'_>, key: &'static str) -> Option<Template> {
    let text = fields.text(key)?;
    parse_template(fields, key, &text)
}

fn parse_template(fields: &mut Fields<'_>, key: &'static str, text: &str) -> Option<Template> {
    match Template::parse(text) {
        Ok(template) => Some(template),
        Err(why) => {
            fields.form(key, why, None);
            None
        }
    }
}

/// Whether the source writes what the templates name. Only known once the source is: asked when a sink opens.
///
/// # Errors
/// `Config`, naming the setting.
pub(crate) fn check_templates<'a>(
    templates: impl IntoIterator<Item = (&'static str, &'a Template)>,
    source: &SourceInfo,
) -> Result<(), Fault> {
    for (key, template) in templates {
        template.check(source).map_err(|why| Fault::config("sink.template", format!("`{key}`: {why}")))?;
    }
    Ok(())
}

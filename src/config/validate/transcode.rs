//! Checks what `transcode` of a route refers to, and what it excludes.

use super::RouteCheck;
use super::upstream::grpc;
use crate::config::code::Code;
use crate::transcode;

impl RouteCheck<'_> {
    /// No two settings may determine the same part of the upstream's request.
    pub(super) fn transcode(&mut self) {
        let Some(transcode) = &self.route.transcode else { return };
        let (set, known) = (&transcode.descriptors, &self.config.descriptors);
        self.reference(&["transcode", "descriptors"], "descriptors", set, known);
        if let Some(key) = self.route.own_answer() {
            let message = format!("a route with `{key}` has no upstream to transcode for");
            self.report(Code::TranscodeOfServe, &["transcode"], message);
        }
        if transcode.upstream == transcode::config::Upstream::Grpc {
            let fallback = self.route.fallback.as_ref().and_then(|f| f.upstream.as_deref());
            let own = self.route.upstreams().map(|name| (&["transcode", "upstream"], name));
            for (keys, name) in own.chain(fallback.map(|name| (&["fallback", "upstream"], name))) {
                let upstream = self.config.upstreams.get(name);
                let unfit = upstream.and_then(|upstream| grpc(name, upstream, self.key(keys)));
                self.problems.extend(unfit);
            }
        }
        if self.route.rewrite.is_some() {
            let message = "the path is that of `transcode.http` already";
            self.report(Code::TranscodeAndRewrite, &["rewrite"], message);
        }
        if self.route.json.is_some() {
            let message = "the fields are those of `transcode` already";
            self.report(Code::TranscodeAndJson, &["json"], message);
        }
    }
}

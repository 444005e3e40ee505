// What dead workers said last: for the log, `state`, and whoever waits for an upgrade.
//
// An answer of the reader comes a moment after the death that it is about. What would be told to
// whoever upgrades in the meantime waits behind it, so that the reason of a failure stands before
// the failure; it never waits longer than Capture asks.
#include <utility>

#include "master/master.h"
#include "master/report.h"
#include "wire/value.h"

namespace einhorn::master {

void Master::ask_for_last_output(WorkerId worker) {
  const pool::Worker* found = pool_->find(worker);
  if (!capture_ || found == nullptr) {
    return;
  }
  LastOutput about;
  about.worker = worker;
  about.version = found->version;
  about.pid = roster_->pid_of(worker);
  about.failed = !found->stopping();
  about.starting = !found->acked();
  capture_->ask(std::move(about), now_);
}

void Master::tell_last_output(const LastOutput& last) {
  events_out_->add("last_output", [&last](wire::EventFields& fields) {
    std::vector<std::string> lines;
    for (const auto& [stream, text] : last.lines) {
      lines.push_back(stream + ": " + text);
    }
    fields.field("slot", last.worker.slot.value).field("epoch", last.worker.epoch.value);
    fields.field("pid", last.pid).field("version", last.version).list("lines", lines);
  });
  if (!last.failed) {
    return;  // it went as it was told to; `state` has it
  }
  LogLine line;
  line.event = "last_output";
  line.pid = last.pid;
  line.worker = last.worker;
  line.version = last.version;
  const bool told = server_ && last.version == pool_->ledger().newest && last.starting;
  const auto say = [&](std::string text) {
    line.text = std::move(text);
    log_->write(line);
    if (told) {
      server_->publish(line.text, false, "");
    }
  };
  say("The last output of worker " + std::to_string(last.pid) +
      " (index: " + std::to_string(last.worker.slot.value) + "):");
  for (const auto& [stream, text] : last.lines) {
    say("  " + stream + ": " + text);
  }
}

void Master::publish(std::string text, bool last, std::string status) {
  if (capture_ && (capture_->asking() || !unpublished_.empty())) {
    unpublished_.push_back({std::move(text), last, std::move(status)});
    return;
  }
  server_->publish(text, last, status);
}

void Master::publish_what_waited() {
  for (const Publication& each : std::exchange(unpublished_, {})) {
    server_->publish(each.text, each.last, each.status);
  }
}

wire::Value capture_report(const ReportInput& input) {
  wire::List dead;
  for (const LastOutput& last : input.capture->last_outputs()) {
    wire::List lines;
    for (const auto& [stream, text] : last.lines) {
      wire::Map line;
      wire::put(line, "stream", stream);
      wire::put(line, "line", text);
      lines.emplace_back(std::move(line));
    }
    wire::Map worker;
    wire::put(worker, "pid", std::int64_t{last.pid});
    wire::put(worker, "index", last.worker.slot.value);
    wire::put(worker, "version", last.version.value);
    wire::put(worker, "died_at", to_wall(last.at, input.settings.wall_offset));
    wire::put(worker, "lines", std::move(lines));
    dead.emplace_back(std::move(worker));
  }
  wire::Map out;
  wire::put(out, "file",
            input.settings.capture_file.empty() ? wire::Value()
                                                : wire::Value(input.settings.capture_file));
  wire::put(out, "dropped", input.capture->dropped());
  wire::put(out, "dead_workers", std::move(dead));
  return out;
}

}  // namespace einhorn::master

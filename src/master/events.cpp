// The master as the source of its event stream.
#include "master/event_stream.h"
#include "master/master.h"

namespace einhorn::master {

void Master::make_event_stream(std::uint64_t number) {
  journal_->note_events(number);
  events_out_ = std::make_unique<EventStream>(
      *server_, *log_,
      EventStream::Source{[this] { return report("json"); },
                          [this](wire::JsonLine& line) { write_sample(line); }, pid_of_,
                          [this](std::uint64_t noted) { journal_->note_events(noted); }},
      number);
  // The same for as long as the pool lives, and another one for the next.
  events_out_->set_name(std::to_string(settings_.started_at->time_since_epoch().count()));
  events_out_->set_time(now_, to_wall(now_, settings_.wall_offset));
}

// The first event of every master.
void Master::announce_master() {
  const std::string_view how = successor_of_master_       ? "handed_over"
                               : taken_over_              ? "taken_over"
                               : settings_.generation > 1 ? "restarted"
                                                          : "started";
  // After a takeover too: if it could not be written down, one that was killed looks like that.
  events_out_->adopt(how != "handed_over");
  events_out_->add("master_started", [&](wire::EventFields& fields) {
    fields.field("how", how).field("generation", settings_.generation).field("pid", own_pid_);
  });
}

// What the pool has no note of.
void Master::tell_event(const pool::Event& event) {
  if (const auto* ping = std::get_if<pool::event::Pinged>(&event)) {
    if (pool_->find(ping->worker) != nullptr) {
      events_out_->add("pinged", [ping](wire::EventFields& fields) {
        fields.worker(ping->worker);
        if (!ping->request_id.empty()) {
          fields.line().json("request_id", ping->request_id);
        }
        if (ping->busy) {
          fields.field("busy", *ping->busy);
        }
      });
    }
  } else if (const auto* said = std::get_if<pool::event::StatusSaid>(&event)) {
    if (pool_->find(said->worker) != nullptr) {
      events_out_->add("status", [said](wire::EventFields& fields) {
        fields.worker(said->worker).field("text", said->text);
      });
    }
  }
}

void Master::write_process(wire::JsonLine& line, Pid pid) {
  os::Wanted wanted;
  wanted.resident = true;
  wanted.cpu = true;
  const std::optional<os::Measured> measured = kernel_.measure(pid, wanted);
  line.field("rss", measured ? measured->resident_bytes.value_or(0) : 0);
  line.field("cpu", measured ? measured->cpu.value_or(Duration{0}) : Duration{0});
}

void Master::write_sample(wire::JsonLine& line) {
  line.field("number", pool_->config().number)
      .field("ready", static_cast<std::uint64_t>(pool_->ready()));
  line.open_list("workers");
  for (const pool::Worker* worker : pool_->workers()) {
    const Pid pid = roster_->pid_of(worker->id);
    if (pid == 0) {
      continue;
    }
    line.open_object();
    line.field("slot", worker->id.slot.value).field("epoch", worker->id.epoch.value);
    write_process(line, pid);
    line.close_object();
  }
  line.close_list().open_list("sockets");
  for (const auto& [index, fd] : descriptors_.listeners) {
    if (const auto queue = kernel_.accept_queue(fd)) {
      line.open_object();
      line.field("index", index).field("waiting", queue->waiting).field("limit", queue->limit);
      line.close_object();
    }
  }
  line.close_list().open_object("master");
  write_process(line, own_pid_);
  line.close_object();
  if (guard_.socket() >= 0) {
    line.open_object("guard");
    write_process(line, public_pid_);
    line.close_object();
  }
}

bool Master::subscribe(CommandServer& server, Connection& connection, const EventStream::Wish& wish,
                       const wire::Request& request) {
  if (!connection.events && !events_out_->has_room()) {
    return false;
  }
  const wire::Value* id = request.document.find("id");
  server.reply(connection,
               {"Subscribed to the events of stream " + events_out_->name(),
                id != nullptr ? std::optional(*id) : std::nullopt, true, ""},
               wire::Language::kJson);
  events_out_->subscribe(connection, wish);
  return true;
}

void Master::commanded(const Connection& connection, std::string_view command,
                       const wire::Value* args) {
  events_out_->add("command", [&](wire::EventFields& fields) {
    fields.field("command", command).field("uid", connection.peer.uid);
    fields.field("pid", connection.peer.pid);
    std::vector<std::string> words;
    if (const wire::List* list = args != nullptr ? args->as_list() : nullptr) {
      for (const wire::Value& word : *list) {
        words.push_back(word.as_string() != nullptr ? *word.as_string() : word.inspect());
      }
    }
    fields.list("args", words);
  });
}

}  // namespace einhorn::master

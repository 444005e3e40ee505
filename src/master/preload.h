// What -p means: which program loads that code, and how it is called.
//
// Each language has a loader of ours, a zygote in that language (docs/preload.md), which lies in
// `../share/einhorn/preload/` from einhorn's own program; that of C and C++ is a program beside it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "os/kernel.h"
#include "wire/snapshot.h"

namespace einhorn::master {

// The language that a file's ending, or `module:function`, stands for; "" none that we know.
[[nodiscard]] std::string_view language_of(std::string_view code);
// The same by the first line of a script ("#!/usr/bin/env ruby"), for files whose names have no
// ending.
[[nodiscard]] std::string_view language_of_script(std::string_view text);
// "python", "ruby", "perl", "php", "c". Errors: any other name, with those that there are; of "node"
// and "go", why not and what to do instead.
[[nodiscard]] Status check_language(std::string_view language);

// How a zygote is called: behind its own words comes `command`, which is what workers see as their
// script and arguments, without an interpreter of the code's language.
[[nodiscard]] std::vector<std::string> zygote_words(const wire::Settings& settings,
                                                    const wire::Program& program,
                                                    const std::vector<std::string>& command);

// Fills in how this version is preloaded; its directory, arguments and environment are there.
// Errors: no such code, no interpreter, no loader.
[[nodiscard]] Status plan_preload(os::Kernel& kernel, const wire::Settings& settings,
                                  wire::Program& program);

}  // namespace einhorn::master

// SessionHandle: what a Session of the public face is made of, besides what the client's thread has of it.
#pragma once

#include <memory>

#include "client/io.h"
#include "client/session_view.h"

namespace conclave::client {

struct SessionHandle {
  const std::shared_ptr<Io> io;
  const int64_t id;  // as the client's thread knows it
  const std::shared_ptr<SessionView> view;
};

// What a claim that was waited for became.
using Granted = std::move_only_function<void(std::expected<std::shared_ptr<HeldState>, Error>)>;

// Both on any thread; `granted` on the client's, once.
void acquire(const SessionHandle& handle, std::vector<std::string> names, bool try_once, LockOptions options,
             Granted granted);
void campaign(const SessionHandle& handle, std::string name, std::string value, CampaignOptions options,
              Granted granted);

}  // namespace conclave::client

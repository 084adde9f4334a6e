-- The clock, what has ended by it, and what is lost with Redis's data.

local SPANS = 1024 -- of an epoch; its number is a multiple of this, plus the span's

-- Redis has restarted, failed over or lost its data: its state is not reliable, except for a pause.
local function reset(cause)
  S.run_id, S.epoch, S.next_id, S.virtual, S.purge_at, S.held, S.slots, S.cause =
    RUN, chance * SPANS, chance * 2 ^ 20, 0, 0, 0, {}, cause
  S.sums = { 0, 0, 0, 0, S.now + CHECK_EVERY }
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
end

-- Read the server's clock or, if it has stepped, the latest time that is certain. That loses time, which no replica's
-- clock may bring back, because slots have been taken by the slower clock: a new epoch begins. A step back that no
-- replica's clock could have shown begins a new span of the epoch: a clock from an earlier span still shows a step, but
-- its time is not used. One of this span may be behind the others by as much as Redis took to answer it: less than
-- CLOCK_STEP.
local function advance(raw)
  local is_known = epoch - epoch % SPANS == S.epoch - S.epoch % SPANS
  local seen = is_known and math.max(S.now, seen_ms) or S.now
  local by_clock = S.now + raw - S.raw
  if seen <= by_clock and by_clock < seen + CLOCK_STEP then
    S.now = by_clock
    if not is_known then S.epoch = S.epoch - S.epoch % SPANS + (S.epoch + 1) % SPANS end
  else
    local sure = epoch == S.epoch and seen - CLOCK_STEP or S.now
    if by_clock < seen then sure = math.max(sure, by_clock) end
    S.now, S.epoch = math.max(S.now, sure), chance * SPANS
  end
end

local function settle()
  local raw = test_raw
  if raw < 0 then
    local time = redis.call('TIME')
    raw = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  if S.run_id == RUN then advance(raw) else reset(S.cause or (S.run_id and 'run' or 'new')) end
  S.raw = raw
  now = S.now
  for _, slot in ipairs(S.slots) do
    slot[FREE_AT] = math.min(slot[FREE_AT], now + LONGEST) -- taken by one with a longer window
    if pending(slot) and now >= slot[USABLE_AT] + TURN_LEASE then refund(slot) end
  end
  while #S.slots > N do
    local at = spare_slot()
    if pending(S.slots[at]) then refund(S.slots[at]) end
    table.remove(S.slots, at)
  end
  while #S.slots < N do
    S.slots[#S.slots + 1] = { now + LONGEST, now, 0, '', '', 0, 0, -1, '' }
  end
end

-- Who is next: the demand over all replicas, and the turns given for it.

local BOARD_ROWS = 1000

-- Return how many of a caller's blocks wait without a turn.
local function lacks(caller) return caller[COUNT] - (caller[TURNS] or 0) end

-- Take one from the demand without a turn.
local function take(seen, caller, share)
  share[S_COUNT], caller[TURNS], seen.count = share[S_COUNT] - 1, (caller[TURNS] or 0) + 1, seen.count - 1
  if not caller[BACKGROUND] then seen.urgent = seen.urgent - 1 end
end

-- Return the demand to consider for pacing: background demand counts only if there is no other.
local function pressing(urgent, count) return urgent > 0 and urgent or count end

local function shares_in(caller)
  if not caller[SHARES] then caller[SHARES] = shares_of(caller[NAME]) end
  return caller[SHARES]
end

-- A caller that returns starts at the present virtual time; one that has left is forgotten once that has passed. If no
-- caller of the previous look still waits, virtual time starts again. `moved` are the callers to check.
local function bring_up_tags(moved, held, carried)
  if not carried then
    S.virtual = 0
    for _, caller in ipairs(moved) do caller[STANDING] = 0 end
  end
  local passed = carried and IDLERS .. sortable(S.virtual) .. '\255\255' or UNSETTLED
  for _, place in ipairs(places(IDLERS, passed)) do
    if not held[string.sub(place, NAME_AT)] then forget_caller(caller_at(place)) end
  end
  for _, caller in ipairs(moved) do
    if caller[COUNT] > 0 or held[caller[NAME]] then
      caller[TAG] = caller[STANDING] == IDLE and math.max(caller[TAG], S.virtual) or S.virtual
      caller[STANDING] = WAITS
      write_caller(caller)
    elseif caller[STANDING] == 0 or caller[TAG] <= S.virtual then
      forget_caller(caller)
    elseif caller[STANDING] == WAITS then
      caller[STANDING] = IDLE
      write_caller(caller)
    end
  end
end

-- Update the callers' tags, and return the demand over all live replicas, less the turns held unused: `known` are
-- callers read, `holders` how many hold turns. A caller's shares are read only when needed.
local function look()
  bury_dead()
  if not is_summed_up() then sum_up() end
  local known, holders, moved, carried = {}, 0, {}, #places(FOREGROUND, IDLERS, 1) > 0
  for _, slot in ipairs(S.slots) do
    local name = slot[CALLER]
    if pending(slot) and not known[name] then
      local caller = read_caller(name) or new_caller(name)
      known[name], holders = caller, holders + 1
      if caller[STANDING] == WAITS then carried = true else moved[#moved + 1] = caller end
    end
  end
  for _, place in ipairs(places(UNSETTLED, LAST)) do
    if not known[string.sub(place, NAME_AT)] then moved[#moved + 1] = caller_at(place) end
  end
  bring_up_tags(moved, known, carried)
  local seen = { count = S.sums[BLOCKS], urgent = S.sums[URGENT], known = known, holders = holders }
  for _, slot in ipairs(S.slots) do
    local caller = pending(slot) and known[slot[CALLER]]
    if caller and caller[COUNT] > 0 then
      local share = share_on(shares_in(caller), slot[REPLICA])
      if share and share[S_COUNT] > 0 then take(seen, caller, share) end
    end
  end
  return seen
end

-- Return the first callers in the order, `most` at most.
local function first_callers(seen, most)
  local first = {}
  for at, place in ipairs(places(FOREGROUND, IDLERS, most)) do
    local name = string.sub(place, NAME_AT)
    seen.known[name] = seen.known[name] or caller_at(place)
    first[at] = seen.known[name]
  end
  return first
end

local function comes_before(a, b)
  if a[BACKGROUND] ~= b[BACKGROUND] then return b[BACKGROUND] end
  if a[TAG] ~= b[TAG] then return a[TAG] < b[TAG] end
  if a[SINCE] ~= b[SINCE] then return a[SINCE] < b[SINCE] end
  return a[NAME] < b[NAME]
end

-- Of as many callers without a turn as turns can be given, at least one has not moved back by a turn since.
local function next_caller(seen)
  seen.first = seen.first or first_callers(seen, seen.holders + free_slots())
  local best
  for _, caller in ipairs(seen.first) do
    if lacks(caller) > 0 and (not best or comes_before(caller, best)) then best = caller end
  end
  return best or error('demand without a caller')
end

local function next_share(caller)
  local best
  for _, share in ipairs(shares_in(caller)) do
    if share[S_COUNT] > 0 and (not best or share[S_SINCE] < best[S_SINCE]
      or (share[S_SINCE] == best[S_SINCE] and share[S_REPLICA] < best[S_REPLICA])) then
      best = share
    end
  end
  return best
end

-- Give all turns that are due.
local function give(seen)
  local paced = pressing(seen.urgent, seen.count) > free_slots()
  while seen.count > 0 do
    local slot
    for _, each in ipairs(S.slots) do
      if not pending(each) and (not slot or each[FREE_AT] < slot[FREE_AT]) then slot = each end
    end
    if not slot then return end
    local usable_at = math.max(now, S.pause_until, slot[FREE_AT])
    if paced then usable_at = math.max(usable_at, last_start() + GAP) end
    if usable_at > now + AHEAD then return end
    local caller = next_caller(seen)
    if caller[BACKGROUND] and free_slots() < SPARE then return end
    local share, cost = next_share(caller), 1 / caller[WEIGHT]
    if not caller[BACKGROUND] then S.virtual = math.max(S.virtual, caller[TAG]) end
    S.next_id = S.next_id + 1
    slot[TURN], slot[REPLICA], slot[CALLER], slot[COST] = S.next_id, share[S_REPLICA], caller[NAME], cost
    slot[USABLE_AT], slot[BEGUN_AT], slot[BLOCK] = usable_at, -1, ''
    caller[TAG] = caller[TAG] + cost
    write_caller(caller)
    take(seen, caller, share)
  end
end

local function board(seen)
  local ranks = {}
  for _, caller in ipairs(first_callers(seen, N + BOARD_ROWS)) do
    if lacks(caller) > 0 and #ranks < BOARD_ROWS then
      ranks[#ranks + 1] =
        { caller[NAME], lacks(caller), caller[TAG], caller[WEIGHT], now - caller[SINCE], caller[BACKGROUND] }
    end
  end
  return { S.virtual, math.floor(S.held + 0.5), ranks }
end

-- Update the callers' tags and give all turns that are due.
local function give_due(wants_board)
  local seen = look()
  give(seen)
  seen.board = wants_board and board(seen) or nil
  return seen
end

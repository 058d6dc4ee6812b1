-- A ledger in Redis: windows.py and local_ledger.py say what it does, this does the same.
-- ARGV[1] is a list of entries as MessagePack, ARGV[2] how long a slot is held, in seconds.
-- KEYS are all the keys that the entries name, each behind PREFIX; the time is that of Redis.

local PREFIX = "{groundserve-limits}:"
local WINDOW_S = 60
local time = redis.call("TIME")
local second = tonumber(time[1])
local now = second + tonumber(time[2]) / 1000000
local lease_s = tonumber(ARGV[2])

local function left(charged_in)
  return charged_in + WINDOW_S + 1 - now
end

local function window(key)
  local read = {name = PREFIX .. key, total = 0, last = 0, charged = {}}
  local fields = redis.call("HGETALL", read.name)
  for place = 1, #fields, 2 do
    local charged_in, amount = tonumber(fields[place]), tonumber(fields[place + 1])
    if charged_in < second - WINDOW_S then
      redis.call("HDEL", read.name, fields[place])
    elseif amount > 0 then
      read.total = read.total + amount
      read.last = math.max(read.last, charged_in)
      read.charged[#read.charged + 1] = {charged_in, amount}
    end
  end
  return read
end

local function wait(read, limit, amount)
  local missing = read.total + amount - limit
  if missing <= 0 then
    return 0
  end
  if amount > limit then
    return -1
  end
  table.sort(read.charged, function(one, other) return one[1] < other[1] end)
  for _, each in ipairs(read.charged) do
    missing = missing - each[2]
    if missing <= 0 then
      return left(each[1])
    end
  end
end

local function charge(read, amount)
  if amount > 0 then
    redis.call("HINCRBY", read.name, second, amount)
    redis.call("EXPIRE", read.name, WINDOW_S + 2)
    read.total = read.total + amount
    read.last = second
  end
end

local function hold(key, lease)
  redis.call("ZADD", PREFIX .. key, now + lease_s, lease)
  redis.call("EXPIRE", PREFIX .. key, lease_s * 2)
end

local function take(lease, charges, slots)
  local refused, wait_s, read = -1, 0, {}
  for place, each in ipairs(charges) do
    read[place] = window(each[1])
    if refused < 0 then
      wait_s = wait(read[place], each[2], math.max(each[3], 1))
      if wait_s ~= 0 then
        refused = place - 1
      end
    end
  end
  for place, slot in ipairs(slots) do
    if refused < 0 then
      redis.call("ZREMRANGEBYSCORE", PREFIX .. slot[1], "-inf", now)
      if redis.call("ZCARD", PREFIX .. slot[1]) >= slot[2] then
        refused = #charges + place - 1
      end
    end
  end
  local standings = {}
  for place, each in ipairs(charges) do
    if refused < 0 then
      charge(read[place], each[3])
    end
    local reset_s = 0
    if read[place].total > 0 then
      reset_s = left(read[place].last)
    end
    standings[place] = {math.max(0, each[2] - read[place].total), reset_s}
  end
  if refused < 0 then
    for _, slot in ipairs(slots) do
      hold(slot[1], lease)
    end
  end
  return {refused, wait_s, second, standings}
end

local function give(lease, slots, charged_in, settled)
  for _, key in ipairs(slots) do
    redis.call("ZREM", PREFIX .. key, lease)
  end
  if charged_in < 0 then
    return
  end
  for _, each in ipairs(settled) do
    local read, amount = window(each[1]), each[2]
    if amount > 0 then
      charge(read, amount)
    elseif charged_in >= second - WINDOW_S then
      local known = tonumber(redis.call("HGET", read.name, charged_in) or 0)
      if known > 0 then
        redis.call("HINCRBY", read.name, charged_in, math.max(amount, -known))
      end
    end
  end
end

local answers = {}
for place, entry in ipairs(cmsgpack.unpack(ARGV[1])) do
  answers[place] = cjson.null -- nil would end the list
  if entry[1] == "take" then
    answers[place] = take(entry[2], entry[3], entry[4])
  elseif entry[1] == "give" then
    give(entry[2], entry[3], entry[4], entry[5])
  else
    for _, key in ipairs(entry[3]) do
      hold(key, entry[2])
    end
  end
end
return cmsgpack.pack(answers)

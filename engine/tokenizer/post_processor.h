// The post-processors of tokenizer.json, as far as ids go: templates that put special tokens around
// a sequence.
#pragma once

#include <cstdint>
#include <vector>

namespace hgrn2 {

class PostProcessor {
 public:
  struct Item {
    bool sequence = false;     // the ids so far, or
    std::vector<int32_t> ids;  // those of a special token
  };
  using Template = std::vector<Item>;

  // Templates are applied one after the other.
  void Add(Template t) { templates_.push_back(std::move(t)); }

  std::vector<int32_t> Apply(std::vector<int32_t> ids, bool add_special_tokens) const {
    for (const Template& t : templates_) {
      std::vector<int32_t> out;
      out.reserve(ids.size() + t.size());
      for (const Item& item : t) {
        const std::vector<int32_t>& part = item.sequence ? ids : item.ids;
        if (item.sequence || add_special_tokens) out.insert(out.end(), part.begin(), part.end());
      }
      ids = std::move(out);
    }
    return ids;
  }

  const std::vector<Template>& templates() const { return templates_; }

 private:
  std::vector<Template> templates_;
};

}  // namespace hgrn2
